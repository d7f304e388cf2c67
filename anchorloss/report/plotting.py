"""A matplotlib figure in a file of its own: the same look, and the same bytes every time."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@contextmanager
def look() -> Iterator[None]:
    """Matplotlib's defaults, whatever the user's own are, without a frame's upper and right side."""
    import matplotlib as mpl

    own: Any = {"svg.hashsalt": "anchorloss", "axes.spines.top": False, "axes.spines.right": False}
    with mpl.rc_context({**mpl.rcParamsDefault, **own}):
        yield


def to_bytes(figure: Figure, file_format: str = "svg") -> bytes:
    """The figure as `svg` or `png`, undated; call it inside `look`."""
    undated = {"Date": None} if file_format == "svg" else {"Software": None}
    content = io.BytesIO()
    figure.savefig(content, format=file_format, dpi=160, metadata=undated)
    return content.getvalue()


@contextmanager
def picture(width: float, height: float, stamp: str) -> Iterator[tuple[Figure, Axes]]:
    """A figure of `width` x `height` inches with `stamp` as its headline, and its axes; inside `look`."""
    from matplotlib.figure import Figure

    with look():
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.suptitle(stamp, x=0.01, ha="left", fontsize=9, fontweight="bold")
        yield figure, figure.add_subplot()
