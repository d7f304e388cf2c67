"""Pictures of the scores: every seed, the differences to the reference, and how many seeds a difference
needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from anchorloss.report.comparison import Comparison
from anchorloss.report.data import ExperimentData
from anchorloss.report.lines import Line, LineStyle, label_ends
from anchorloss.report.palette import INK, MUTED, PAPER
from anchorloss.report.stats import Interval, mean_interval, summarise
from anchorloss.report.svg import inline, marks, name_rows, panel, write_in_row
from anchorloss.report.table import SCORES
from anchorloss.report.text import interval, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_SEEDS_DRAWN = 30
MOST_MARKS = 50
PUBLISHED_DASHES: LineStyle = (0, (4, 3))


def every_seed(data: ExperimentData, score: str, name: str) -> tuple[str, str] | None:
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
            style, summary = data.styles[loss], summarise(values)
            if summary.mean is None:
                write_in_row(axes, row, 0.02, "no finished run", color=MUTED)
                continue
            seeds = [values[seed] for seed in sorted(values)]
            seeds = seeds[:: -(-len(seeds) // MOST_MARKS)]
            if len(seeds) < len(values):
                left_out.append(f"{len(seeds)} of {len(values)} of {data.label(loss)}")
            heights = [row - 0.14] * len(seeds)
            marks(axes, seeds, heights, style, 6, mew=0.7, alpha=0.85, clip_on=False)
            _bar(axes, mean_interval(values), row + 0.2, style.colour, 2.2)
            axes.plot(summary.mean, row + 0.2, "|", color=INK, ms=11, mew=2)
            if data.stamp is None and loss in data.published:
                mean, std = data.published[loss].score(score)
                axes.plot([mean - std, mean + std], [row + 0.36] * 2, color=MUTED, lw=1.2)
                axes.plot(mean, row + 0.36, "d", color=PAPER, mec=MUTED, ms=6)
            said.append(f"{data.label(loss)} {summary.mean:.2f}, n = {summary.n}")
        name_rows(axes, [data.label(loss) for loss in losses], 0.5, 0.5)
        axes.margins(x=0.08)
        axes.set(title=f"{SCORES[score]}, every seed", xlabel="percent, last epoch")
    svg = inline(figure, name, f"{SCORES[score]} of every seed in percent. Means: {'; '.join(said)}.")
    return svg, f"Seeds drawn: {', '.join(left_out)}; all are in the means." if left_out else ""


def differences(data: ExperimentData, comparisons: Sequence[Comparison], score: str, name: str) -> str | None:
    """Difference to the reference with its 95 % interval, a row for each loss; hollow: the published one.

    None where nothing was compared.
    """
    if all(comparison.difference is None for comparison in comparisons):
        return None
    with panel(5.0, 1.1 + 0.6 * len(comparisons)) as (figure, axes):
        axes.axvline(0, color=MUTED, lw=1.2)
        said = []
        for row, comparison in enumerate(comparisons):
            found, style = comparison.difference, data.styles[comparison.loss]
            claimed = data.published_difference(comparison.loss, score)
            if claimed is not None:
                axes.plot(claimed, row + 0.24, "d", color="none", mec=MUTED, ms=7, mew=1.3)
            if found is None:
                continue
            _bar(axes, found.interval, row, style.colour, 2.4)
            marks(axes, found.estimate, row, style, 8, mew=0.8)
            label = signed(found.estimate)
            if found.interval is not None:
                label += f"\n{interval(found.interval)}"
            write_in_row(axes, row, 1.03, label, fontsize=10, linespacing=1.35)
            said.append(f"{data.label(comparison.loss)} {signed(found.estimate)}")
        reference = data.label(comparisons[0].reference)
        name_rows(axes, [data.label(c.loss) for c in comparisons], 0.55, 0.6)
        axes.margins(x=0.1)
        axes.set_title(f"{SCORES[score]} minus {reference}")
        claims = any(data.published_difference(c.loss, score) is not None for c in comparisons)
        axes.set_xlabel("points; bar: 95 % interval" + "; ◇ published" * claims)
    return inline(figure, name, f"{SCORES[score]} minus {reference} in points: {'; '.join(said)}.")


def power_curve(
    data: ExperimentData, comparisons: Sequence[Comparison], claimed: float | None, name: str
) -> str | None:
    """The minimum detectable difference (80 % power) of n seeds of each loss, with each observed spread.

    None without any spread.
    """
    from matplotlib.ticker import LogLocator, NullLocator

    tested = [comparison for comparison in comparisons if comparison.detectable() is not None]
    if not tested:
        return None
    counts = np.arange(2, MOST_SEEDS_DRAWN + 1)
    with panel(5.0, 3.6) as (figure, axes):
        lines = []
        for comparison in tested:
            detectable = [comparison.detectable(int(n)) or np.nan for n in counts]
            colour = data.styles[comparison.loss].colour
            axes.plot(counts, detectable, color=colour)
            lines.append(Line(detectable[-1], data.label(comparison.loss), colour))
        if claimed:
            axes.axhline(abs(claimed), color=MUTED, ls=PUBLISHED_DASHES, lw=1.2)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
        if claimed:
            lines.append(Line(abs(claimed), f"published {signed(claimed)}", MUTED, PUBLISHED_DASHES))
        label_ends(axes, lines)
        axes.set(title="Minimum detectable difference", xlabel="seeds of each loss", ylabel="points")
    return inline(
        figure,
        name,
        "Minimum detectable difference from the reference by the number of seeds of each loss, 80 % power.",
    )


def _bar(axes: Axes, found: Interval | None, height: float, colour: str, width: float) -> None:
    if found is not None:
        axes.plot([found.low, found.high], [height] * 2, color=colour, lw=width, solid_capstyle="butt")
