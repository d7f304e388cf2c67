"""Pictures of the predictions: differences by class, confused pairs, reliability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from anchorloss.analysis.calibration import BINS, Reliability
from anchorloss.analysis.confusion import Pair
from anchorloss.report.colours import INK, MUTED, PAPER, RULE, Style
from anchorloss.report.data import ExperimentData
from anchorloss.report.markup import number
from anchorloss.report.svg import inline, panel

Floats = npt.NDArray[np.float64]
NAMED = 4


def class_differences(
    data: ExperimentData,
    style: Style,
    loss: str,
    reference: str,
    change: Floats,
    chance: float | None,
    name: str,
) -> str:
    """Accuracy by class, loss minus reference, sorted; the classes at both ends named.

    change: points, shape (classes,). chance: band of ± two standard deviations that seeds alone would give.
    """
    order = np.argsort(change, kind="stable")
    order = order[np.isfinite(change[order])]
    heights = change[order]
    title = f"{data.label(loss)} minus {data.label(reference)}"
    with panel(5.0, 3.6, data.stamp) as (figure, axes):
        if chance is not None:
            axes.axhspan(-2 * chance, 2 * chance, color=RULE, alpha=0.6, lw=0)
        axes.bar(np.arange(len(heights)), heights, width=0.85, color=style.colour, lw=0)
        axes.axhline(0, color=MUTED, lw=1)
        count = min(NAMED, len(heights) // 2)
        best, worst = order[::-1][:count], order[:count]
        axes.text(
            0.02,
            0.98,
            _lines("best", data, change, best),
            transform=axes.transAxes,
            va="top",
            fontsize=10,
        )
        axes.text(
            0.98,
            0.02,
            _lines("worst", data, change, worst),
            transform=axes.transAxes,
            va="bottom",
            ha="right",
            fontsize=10,
        )
        largest = float(np.abs(heights).max()) if len(heights) else 1.0
        axes.set_ylim(-1.15 * largest - 0.1, 1.15 * largest + 0.1)
        axes.set_xticks([])
        axes.grid(visible=False)
        axes.set_title(title)
        axes.set_xlabel("classes, sorted")
        axes.set_ylabel("points")
    return inline(
        figure, name, f"Accuracy by class, {title}, in points. {_lines('Best', data, change, best)}."
    )


def confused(data: ExperimentData, styles: Mapping[str, Style], pairs: Sequence[Pair], name: str) -> str:
    """A row for each pair of classes: mistakes between them under each loss, in images a run."""
    losses = [loss for loss in data.losses if data.predictions[loss]]
    with panel(5.0, 1.3 + 0.32 * len(pairs), data.stamp) as (figure, axes):
        for row, pair in enumerate(pairs):
            means = {loss: pair.mistaken[loss].mean or 0.0 for loss in losses}
            axes.plot(
                [min(means.values()), max(means.values())],
                [row] * 2,
                color=RULE,
                lw=3,
                zorder=1,
                solid_capstyle="round",
            )
            for loss, mean in means.items():
                style = styles[loss]
                axes.plot(mean, row, style.marker, color=style.colour, ms=7, mec=PAPER, mew=0.8, zorder=3)
        names = [f"{data.class_name(p.first)} · {data.class_name(p.second)}" for p in pairs]
        axes.set_yticks(range(len(pairs)), names, color=INK)
        axes.set_ylim(len(pairs) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        for loss in losses:
            style = styles[loss]
            axes.plot([], [], style.marker, color=style.colour, ms=7, mec=PAPER, label=data.label(loss))
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=10.5, handletextpad=0.2)
        axes.set_xlabel("mistakes between the two, images a run")
        axes.set_title("Classes taken for each other")
    return inline(figure, name, f"The most confused pairs of classes: {'; '.join(names)}.")


def reliability_diagram(
    data: ExperimentData, style: Style, loss: str, found: Reliability, error: str, name: str
) -> str:
    """Share of right predictions against the score of the predicted class, and below how many images have that
    score.
    """
    edges = np.linspace(0, 1, BINS + 1)
    share = found.images / found.images.sum()
    with panel(5.0, 3.9, data.stamp) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=MUTED, lw=1.2, ls=(0, (4, 3)))
        axes.bar(edges[:-1], 0.3 * share / share.max(), width=1 / BINS, align="edge", color=RULE, lw=0)
        filled = found.images > 0
        axes.plot(
            found.score[filled],
            found.accuracy[filled],
            marker=style.marker,
            ms=6,
            color=style.colour,
            mec=PAPER,
            mew=0.7,
        )
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        axes.text(0.03, 0.97, f"calibration error {error}", va="top", transform=axes.transAxes, fontsize=10.5)
        axes.set_title(data.label(loss))
        axes.set_xlabel("score of the predicted class")
        axes.set_ylabel("share right")
    return inline(figure, name, f"Reliability of {data.label(loss)}: calibration error {error}.")


def _lines(heading: str, data: ExperimentData, change: Floats, classes: npt.NDArray[np.int64]) -> str:
    return "\n".join(
        [heading, *(f"{data.class_name(int(c))} {number(float(change[c]), '{:+.1f}')}" for c in classes)]
    )
