"""Lines that are named beside their right ends instead of in a legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LineStyle = str | tuple[float, Sequence[float]]
STEP = 0.085


class Line(NamedTuple):
    """A drawn line: its last value, and what it is called and looks like."""

    last: float
    name: str
    colour: str
    style: LineStyle = "-"


def label_ends(axes: Axes, lines: Sequence[Line]) -> None:
    """Name each line beside its right end, after a sample of it, moved apart where lines end close together.

    Args:
        axes: With all lines drawn and its scale set.
        lines: Those to name.
    """
    if not lines:
        return
    figure = axes.get_figure()
    assert figure is not None
    axes.autoscale_view()
    low, high = (axes.transData.transform((1, y))[1] for y in axes.get_ylim())
    lines = sorted(lines, key=lambda line: line[:2])
    heights: list[float] = []
    for line in lines:
        share = (axes.transData.transform((1, line.last))[1] - low) / (high - low)
        heights.append(max(share, heights[-1] + STEP if heights else -1.0))
    shift = max(0.0, heights[-1] - 1.0)
    for line, height in zip(lines, heights, strict=True):
        axes.plot(
            [1.015, 1.115],
            [height - shift] * 2,
            transform=axes.transAxes,
            color=line.colour,
            ls=line.style,
            lw=1.8,
            clip_on=False,
        )
        axes.text(1.13, height - shift, line.name, transform=axes.transAxes, va="center", fontsize=10.5)
