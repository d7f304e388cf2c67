"""Pictures of the predictions: differences by class, confused pairs, reliability."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from anchorloss.report.calibration import BINS, FEWEST_IMAGES, Reliability
from anchorloss.report.confusion import Floats, Pair
from anchorloss.report.data import ExperimentData
from anchorloss.report.palette import MUTED, RULE
from anchorloss.report.svg import inline, marks, name_rows, panel
from anchorloss.report.text import number

NAMED = 3


def class_differences(
    data: ExperimentData, loss: str, change: Floats, chance: float | None, name: str
) -> str:
    """Accuracy by class, loss minus the reference, sorted.

    change: points, shape (classes,). chance: band of ± two standard deviations that seeds alone would give.
    """
    heights = np.sort(change[np.isfinite(change)])
    title = f"{data.label(loss)} minus {data.reference_label}"
    with panel(5.0, 3.6) as (figure, axes):
        if chance is not None:
            axes.axhspan(-2 * chance, 2 * chance, color=RULE, alpha=0.6, lw=0)
        axes.bar(np.arange(len(heights)), heights, width=0.85, color=data.styles[loss].colour, lw=0)
        axes.axhline(0, color=MUTED, lw=1)
        largest = float(np.abs(heights).max()) if len(heights) else 1.0
        axes.set(ylim=(-1.15 * largest - 0.1, 1.15 * largest + 0.1), xticks=[])
        axes.grid(visible=False)
        axes.set(title=title, xlabel="classes, sorted", ylabel="points")
    return inline(figure, name, f"Accuracy by class, {title}, in points.")


def extremes(data: ExperimentData, change: Floats) -> str:
    """The classes at both ends of `change` (classes,), in words."""
    order = np.argsort(change, kind="stable")
    order = order[np.isfinite(change[order])]
    count = min(NAMED, len(order) // 2)
    named = [
        ", ".join(f"{data.class_name(int(c))} {number(float(change[c]), '{:+.1f}')}" for c in classes)
        for classes in (order[::-1][:count], order[:count])
    ]
    return f"Best: {named[0]}. Worst: {named[1]}." if count else ""


def confused(data: ExperimentData, pairs: Sequence[Pair], name: str) -> str:
    """A row for each pair of classes: mistakes between them under each loss, in images a run."""
    losses = [loss for loss in data.losses if data.predictions[loss]]
    with panel(5.0, 1.3 + 0.32 * len(pairs)) as (figure, axes):
        for row, pair in enumerate(pairs):
            means = {loss: pair.mistaken[loss].mean or 0.0 for loss in losses}
            ends = [min(means.values()), max(means.values())]
            axes.plot(ends, [row] * 2, color=RULE, lw=3, zorder=1, solid_capstyle="round")
            for loss, mean in means.items():
                marks(axes, mean, row, data.styles[loss], 7, mew=0.8, zorder=3)
        names = [f"{data.class_name(p.first)} · {data.class_name(p.second)}" for p in pairs]
        name_rows(axes, names, 0.6, 0.6)
        for loss in losses:
            marks(axes, [], [], data.styles[loss], 7, label=data.label(loss))
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=10.5, handletextpad=0.2)
        axes.set(xlabel="mistakes between the two, images a run", title="Classes taken for each other")
    return inline(figure, name, f"The most confused pairs of classes: {'; '.join(names)}.")


def reliability_diagram(data: ExperimentData, loss: str, found: Reliability, error: str, name: str) -> str:
    """Share of right predictions against the score of the predicted class, and below how many images have that
    score.
    """
    edges = np.linspace(0, 1, BINS + 1)
    share = found.images / found.images.sum()
    with panel(5.0, 3.9) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=MUTED, lw=1.2, ls=(0, (4, 3)))
        axes.bar(edges[:-1], 0.3 * share / share.max(), width=1 / BINS, align="edge", color=RULE, lw=0)
        filled = found.images >= FEWEST_IMAGES
        marks(axes, found.score[filled], found.accuracy[filled], data.styles[loss], 6, mew=0.7, ls="-")
        axes.set(
            xlim=(0, 1),
            ylim=(0, 1.02),
            title=f"{data.label(loss)}: error {error}",
            xlabel="score of the predicted class",
            ylabel="share right",
        )
    return inline(figure, name, f"Reliability of {data.label(loss)}: calibration error {error}.")
