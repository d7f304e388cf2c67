"""The colours of every figure: hues after Okabe and Ito's palette for colour-blind readers, one colour and marker a loss.

Figures in the report are drawn in stand-in colours that become CSS variables, so one picture serves the light and the
dark theme. Markers repeat the distinction without colour.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

BLUE, VERMILION, GREEN, PINK, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
SERIES = (BLUE, VERMILION, GREEN, PINK, ORANGE, SKY)


@dataclass(frozen=True)
class Style:
    """What a loss is drawn with: `colour` is the stand-in, `variable` the CSS variable's name."""

    colour: str
    variable: str
    marker: str


# variable: (stand-in in figures, light, dark). Stand-ins must differ from each other.
VARIABLES = {
    "ink": ("#1b1d21", "#1b1d21", "#e9e8e4"),
    "muted": ("#63676e", "#5d6168", "#a3a7ae"),
    "rule": ("#d9d7d0", "#dcdad3", "#383c43"),
    "paper": ("#fdfcfa", "#fdfcfa", "#16181c"),
    "stamp": ("#b3261e", "#a8231b", "#ff9d8f"),
    "loss-bce": ("#3d4047", "#3a3d44", "#d6d4ce"),
    "loss-target": (VERMILION, "#c45500", "#ff8f40"),
    "loss-background": (BLUE, BLUE, SKY),
    "loss-both": (GREEN, "#007a58", "#2cc197"),
    "loss-softmax": (PINK, "#b85f92", "#dd93bb"),
    "loss-other-1": (ORANGE, "#a87400", ORANGE),
    "loss-other-2": ("#7a5cc2", "#7a5cc2", "#a78be6"),
    "loss-other-3": ("#8c6d46", "#8c6d46", "#c4a67c"),
}
INK, MUTED, RULE, PAPER = (VARIABLES[name][0] for name in ("ink", "muted", "rule", "paper"))
_KNOWN = {
    "bce": ("loss-bce", "o"),
    "anchor_target": ("loss-target", "^"),
    "anchor_bg": ("loss-background", "s"),
    "anchor_both": ("loss-both", "D"),
    "softmax": ("loss-softmax", "v"),
}
_OTHERS = (("loss-other-1", "P"), ("loss-other-2", "X"), ("loss-other-3", "p"))


def styles(losses: Iterable[str]) -> dict[str, Style]:
    """Return a style for each loss; those that Table 1 does not have take the other colours in turn."""
    others = itertools.cycle(_OTHERS)
    drawn = {loss: _KNOWN.get(loss) or next(others) for loss in losses}
    return {
        loss: Style(VARIABLES[variable][0], variable, marker) for loss, (variable, marker) in drawn.items()
    }


def theme() -> str:
    """Return the CSS rules that set the variables, for the light and the dark theme."""
    light, dark = (
        "".join(f"--{name}:{values[column]};" for name, values in VARIABLES.items()) for column in (1, 2)
    )
    return f":root{{color-scheme:light dark;{light}}}\n@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
