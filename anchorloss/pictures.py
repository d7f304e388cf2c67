"""A matplotlib figure of its own in a file: stamped with what it shows, the same bytes every time."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours that stay apart in print and for most colour-blind readers (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
INK = "#222222"


class Picture:
    """`axes` to draw on; after the `with` block, `svg` is the finished file."""

    axes: Axes
    svg: bytes


@contextmanager
def picture(width: float, height: float, stamp: str) -> Iterator[Picture]:
    """One set of axes, `width` x `height` inches, with `stamp` as its headline."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    look: Any = {"svg.hashsalt": "anchorloss", "axes.spines.top": False, "axes.spines.right": False}
    drawn = Picture()
    with mpl.rc_context({**mpl.rcParamsDefault, **look}):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.suptitle(stamp, x=0.01, ha="left", fontsize=9, fontweight="bold")
        drawn.axes = figure.add_subplot()
        yield drawn
        content = io.BytesIO()
        figure.savefig(content, format="svg", metadata={"Date": None})
    drawn.svg = content.getvalue()
