"""A matplotlib figure as inline SVG: small, the same bytes every time, in the page's font and theme
colours.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from markupsafe import Markup

from anchorloss.report.palette import INK, MUTED, PAPER, RULE, VARIABLES, Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Drawn at 72 units an inch, so a panel of 5 x 3.5 inches is 360 x 252 CSS pixels: text keeps its size on a phone.
_LOOK: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "anchorloss",
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelsize": 11,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.unicode_minus": True,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "text.color": INK,
    "lines.linewidth": 1.8,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}


@contextmanager
def panel(width: float = 5.0, height: float = 3.6) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one set of axes in the report's look; sizes in inches."""
    from matplotlib.figure import Figure

    with mpl.rc_context({**mpl.rcParamsDefault, **_LOOK}):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def name_rows(axes: Axes, names: Sequence[str], below: float, above: float) -> None:
    """Name the rows 0, 1, … of a figure from top to bottom, with this much room under the last and over the first."""
    axes.set_yticks(range(len(names)), names, color=INK)
    axes.set_ylim(len(names) - 1 + below, -above)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)


def marks(axes: Axes, x: Any, y: Any, style: Style, size: float, **look: Any) -> None:
    """Draw values of a loss as its marks, edged in the colour of the page; size in points."""
    axes.plot(x, y, style.marker, color=style.colour, ms=size, mec=PAPER, **look)


def write_in_row(axes: Axes, row: float, share: float, text: str, **look: Any) -> None:
    """Write at the height of a row, from this share of the width of the axes on."""
    axes.text(share, row, text, transform=axes.get_yaxis_transform(), va="center", **look)


def inline(figure: Figure, name: str, description: str) -> Markup:
    """The figure as an <svg> element for a page.

    name: unique in the page; prefixes every id. description: what a reader who cannot see the figure should
    know.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    text = io.StringIO()
    with mpl.rc_context({**mpl.rcParamsDefault, **_LOOK}):
        # Not `savefig`, which draws everything once more beforehand.
        canvas = FigureCanvasSVG(figure)
        canvas.print_svg(text, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    # matplotlib's global style rule would reach every element of the page; style.css has it for figures alone.
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*;?", "", svg)
    # Mathematics comes with the shorthand, which cannot leave the family to the page.
    svg = re.sub(r"font: (italic )?([\d.]+px)[^;\"]*", _font, svg)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    for variable, (stand_in, _, _) in VARIABLES.items():
        svg = re.sub(re.escape(stand_in), f"var(--{variable})", svg, flags=re.IGNORECASE)
    opening = svg[: svg.index(">") + 1]
    box = re.search(r'viewBox="([^"]*)"', opening)
    assert box is not None
    label = html.escape(description, quote=True)
    return Markup(
        f'<svg viewBox="{box[1]}" role="img" aria-label="{label}" xmlns:xlink="http://www.w3.org/1999/xlink">'
        + re.sub(r"\n\s*", "\n", svg[len(opening) :]).strip()
    )


def _font(shorthand: re.Match[str]) -> str:
    return f"font-size: {shorthand[2]}" + ("; font-style: italic" if shorthand[1] else "")
