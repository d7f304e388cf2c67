"""Pictures of the scores: every seed, the differences to the reference, and how many seeds a difference
needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from anchorloss.analysis.comparison import Comparison
from anchorloss.analysis.palette import INK, MUTED, PAPER, Style
from anchorloss.analysis.published import Published
from anchorloss.analysis.stats import mean_interval, summarise
from anchorloss.report.data import ExperimentData
from anchorloss.report.svg import inline, panel
from anchorloss.report.text import interval, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LineStyle = str | tuple[float, Sequence[float]]

MOST_SEEDS_DRAWN = 30
MOST_MARKS = 50
PUBLISHED_DASHES: LineStyle = (0, (4, 3))


def every_seed(
    data: ExperimentData, styles: Mapping[str, Style], score: str, name: str
) -> tuple[str, str] | None:
    """A row for each loss: a mark for each seed, below them the mean with its 95 % interval.

    The published mean ± std is drawn in grey where the protocol is the paper's.

    Returns:
        The figure, and what it leaves out in words (more than `MOST_MARKS` seeds of a loss); None without a finished run.
    """
    losses = data.losses
    if data.first is None:
        return None
    with panel(5.0, 1.1 + 0.6 * len(losses)) as (figure, axes):
        said, left_out = [], []
        for row, loss in enumerate(losses):
            values = data.values[score][loss]
            style, summary, bounds = styles[loss], summarise(values), mean_interval(values)
            if summary.mean is None:
                axes.text(
                    0.02,
                    row,
                    "no finished run",
                    transform=axes.get_yaxis_transform(),
                    va="center",
                    color=MUTED,
                )
                continue
            seeds = [values[seed] for seed in sorted(values)]
            seeds = seeds[:: -(-len(seeds) // MOST_MARKS)]
            if len(seeds) < len(values):
                left_out.append(f"{len(seeds)} of {len(values)} of {data.label(loss)}")
            axes.plot(
                seeds,
                [row - 0.14] * len(seeds),
                style.marker,
                color=style.colour,
                ms=6,
                mec=PAPER,
                mew=0.7,
                alpha=0.85,
                clip_on=False,
            )
            if bounds is not None:
                axes.plot(
                    [bounds.low, bounds.high],
                    [row + 0.2] * 2,
                    color=style.colour,
                    lw=2.2,
                    solid_capstyle="butt",
                )
            axes.plot(summary.mean, row + 0.2, "|", color=INK, ms=11, mew=2)
            if data.stamp is None and loss in data.published:
                _published_mark(axes, data.published[loss], score, row)
            said.append(f"{data.label(loss)} {summary.mean:.2f}, n = {summary.n}")
        axes.set_yticks(range(len(losses)), [data.label(loss) for loss in losses], color=INK)
        axes.set_ylim(len(losses) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.08)
        axes.set_title(f"{_name(score)}, every seed")
        axes.set_xlabel("percent, last epoch")
    svg = inline(figure, name, f"{_name(score)} of every seed in percent. Means: {'; '.join(said)}.")
    return svg, f"Seeds drawn: {', '.join(left_out)}; all are in the means." if left_out else ""


def differences(
    data: ExperimentData,
    styles: Mapping[str, Style],
    comparisons: Sequence[Comparison],
    score: str,
    name: str,
) -> str | None:
    """Difference to the reference with its 95 % interval, a row for each loss; hollow: the published one.

    None where nothing was compared.
    """
    if all(comparison.difference is None for comparison in comparisons):
        return None
    with panel(5.0, 1.1 + 0.6 * len(comparisons)) as (figure, axes):
        axes.axvline(0, color=MUTED, lw=1.2)
        said = []
        for row, comparison in enumerate(comparisons):
            loss, found, style = comparison.loss, comparison.difference, styles[comparison.loss]
            claimed = data.published_difference(loss, score)
            if claimed is not None:
                axes.plot(claimed, row + 0.24, "d", color="none", mec=MUTED, ms=7, mew=1.3)
            if found is None:
                continue
            if found.interval is not None:
                axes.plot(
                    [found.interval.low, found.interval.high],
                    [row] * 2,
                    color=style.colour,
                    lw=2.4,
                    solid_capstyle="butt",
                )
            axes.plot(found.estimate, row, style.marker, color=style.colour, ms=8, mec=PAPER, mew=0.8)
            label = number(found.estimate, "{:+.2f}")
            if found.interval is not None:
                label += f"\n{interval(found.interval)}"
            axes.text(
                1.03,
                row,
                label,
                transform=axes.get_yaxis_transform(),
                va="center",
                fontsize=10,
                linespacing=1.35,
            )
            said.append(f"{data.label(loss)} {number(found.estimate, '{:+.2f}')}")
        reference = data.label(comparisons[0].reference)
        axes.set_yticks(range(len(comparisons)), [data.label(c.loss) for c in comparisons], color=INK)
        axes.set_ylim(len(comparisons) - 0.45, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.1)
        axes.set_title(f"{_name(score)} minus {reference}")
        claims = any(data.published_difference(c.loss, score) is not None for c in comparisons)
        axes.set_xlabel("points; bar: 95 % interval" + "; ◇ published" * claims)
    return inline(figure, name, f"{_name(score)} minus {reference} in points: {'; '.join(said)}.")


def power_curve(
    data: ExperimentData,
    styles: Mapping[str, Style],
    comparisons: Sequence[Comparison],
    claimed: float | None,
    name: str,
) -> str | None:
    """The minimum detectable difference (80 % power) of n seeds of each loss, with each observed spread.

    None without any spread.
    """
    from matplotlib.ticker import LogLocator, NullLocator

    if all(comparison.detectable() is None for comparison in comparisons):
        return None
    counts = np.arange(2, MOST_SEEDS_DRAWN + 1)
    with panel(5.0, 3.6) as (figure, axes):
        ends: list[tuple[float, str, str, LineStyle]] = []
        for comparison in comparisons:
            found = comparison.difference
            if found is None or comparison.detectable() is None:
                continue
            detectable = [comparison.detectable(int(n)) or np.nan for n in counts]
            style = styles[comparison.loss]
            axes.plot(counts, detectable, color=style.colour)
            ends.append((detectable[-1], data.label(comparison.loss), style.colour, "-"))
        if claimed:
            axes.axhline(abs(claimed), color=MUTED, ls=PUBLISHED_DASHES, lw=1.2)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
        if claimed:
            ends.append((abs(claimed), f"published {number(claimed, '{:+.2f}')}", MUTED, PUBLISHED_DASHES))
        label_ends(axes, ends)
        axes.set_title("Minimum detectable difference")
        axes.set_xlabel("seeds of each loss")
        axes.set_ylabel("points")
    return inline(
        figure,
        name,
        "Minimum detectable difference from the reference by the number of seeds of each loss, 80 % power.",
    )


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str, LineStyle]]) -> None:
    """Name each line beside its right end, moved apart where lines end close together.

    Args:
        axes: With all lines drawn and its scale set.
        ends: For each line its last value, its name, colour and line style; a sample in that style leads the name.
    """
    if not ends:
        return
    figure = axes.get_figure()
    assert figure is not None
    axes.autoscale_view()
    low, high = (axes.transData.transform((1, y))[1] for y in axes.get_ylim())
    placed: list[tuple[float, str, str, LineStyle]] = []
    step = 0.085
    for y, text, colour, style in sorted(ends, key=lambda end: end[:2]):
        share = (axes.transData.transform((1, y))[1] - low) / (high - low)
        placed.append((max(share, placed[-1][0] + step if placed else -1.0), text, colour, style))
    shift = max(0.0, placed[-1][0] - 1.0)
    for share, text, colour, style in placed:
        axes.plot(
            [1.015, 1.115],
            [share - shift] * 2,
            transform=axes.transAxes,
            color=colour,
            ls=style,
            lw=1.8,
            clip_on=False,
        )
        axes.text(1.13, share - shift, text, transform=axes.transAxes, va="center", fontsize=10.5)


def _published_mark(axes: Axes, row: Published, score: str, at: int) -> None:
    mean, std = getattr(row, f"{score}_mean"), getattr(row, f"{score}_std")
    axes.plot([mean - std, mean + std], [at + 0.36] * 2, color=MUTED, lw=1.2)
    axes.plot(mean, at + 0.36, "d", color=PAPER, mec=MUTED, ms=6)


def _name(score: str) -> str:
    return {"top1": "Top-1", "top5": "Top-5"}[score]
