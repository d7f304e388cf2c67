"""One colour and one marker a loss, everywhere; light and dark by CSS variables.

Figures are drawn in stand-in colours that `svg.py` turns into `var(--name)`, so one picture serves both
themes. Hues after Okabe and Ito's palette for colour-blind readers; markers repeat the distinction without
colour.
"""

from __future__ import annotations

from dataclasses import dataclass


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
    "panel": ("#f5f3ee", "#f5f3ee", "#1f2228"),
    "stamp": ("#b3261e", "#a8231b", "#ff9d8f"),
    "loss-bce": ("#3d4047", "#3a3d44", "#d6d4ce"),
    "loss-target": ("#d55e00", "#d55e00", "#ff8f40"),
    "loss-background": ("#0072b2", "#0072b2", "#56b4e9"),
    "loss-both": ("#009e73", "#007a58", "#2cc197"),
    "loss-softmax": ("#cc79a7", "#b85f92", "#dd93bb"),
    "loss-other-1": ("#e69f00", "#a87400", "#e69f00"),
    "loss-other-2": ("#7a5cc2", "#7a5cc2", "#a78be6"),
    "loss-other-3": ("#8c6d46", "#8c6d46", "#c4a67c"),
}
INK, MUTED, RULE, PAPER, STAMP = (VARIABLES[name][0] for name in ("ink", "muted", "rule", "paper", "stamp"))
_KNOWN = {
    "bce": ("loss-bce", "o"),
    "anchor_target": ("loss-target", "^"),
    "anchor_bg": ("loss-background", "s"),
    "anchor_both": ("loss-both", "D"),
    "softmax": ("loss-softmax", "v"),
}
_OTHERS = (("loss-other-1", "P"), ("loss-other-2", "X"), ("loss-other-3", "p"))


def styles(losses: tuple[str, ...]) -> dict[str, Style]:
    """A style for each loss; those that Table 1 does not have take the other colours in turn."""
    found: dict[str, Style] = {}
    others = 0
    for loss in losses:
        if loss in _KNOWN:
            variable, marker = _KNOWN[loss]
        else:
            variable, marker = _OTHERS[others % len(_OTHERS)]
            others += 1
        found[loss] = Style(VARIABLES[variable][0], variable, marker)
    return found
