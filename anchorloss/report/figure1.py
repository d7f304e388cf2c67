"""Figure 1 of the supplement: how an anchor probability modulates the loss, drawn from the loss itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from anchorloss.loss import anchor_loss
from anchorloss.report.palette import BLUE, INK, SKY, VERMILION
from anchorloss.report.plotting import look, to_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The colour of each gamma; 0 is binary cross entropy.
COLOURS = {0.0: INK, 0.5: SKY, 1.0: BLUE, 2.0: VERMILION}
HIGHEST_LOSS = 5.0
# A logit that settles a class: its own loss is 0 in float64.
CERTAIN = 1e4


@dataclass(frozen=True)
class Panel:
    """One half of the figure: the loss of one class against its score q, with the anchor held at `anchor_score`.

    Attributes:
        anchor: The loss's `anchor`, and the class whose loss is drawn: "target" or "background".
        anchor_score: The anchor's score, 0 to 1.
        anchor_name: Its name in the annotation.
    """

    anchor: str
    anchor_score: float
    anchor_name: str
    title: str


PANELS = (
    Panel("target", 0.2, r"$q_{pos}$", "(i) Modulate loss for target class"),
    Panel("background", 0.8, r"$q_{neg}$", "(ii) Modulate loss for background classes"),
)


def curve(panel: Panel, gamma: float, q: Tensor) -> Tensor:
    """Compute the loss of the panel's class, equations 2 and 3 of the supplement.

    It comes from samples of two classes: one has the score q, the other is the anchor. The anchor's own term, which is
    the loss of the sample where the first class is certain, is subtracted. The scores `q` and the losses returned are
    float64 (points,).
    """
    target = torch.zeros(len(q), dtype=torch.int64)
    moving, certain = (0, CERTAIN) if panel.anchor == "target" else (1, -CERTAIN)

    def losses(moved: Tensor | float) -> Tensor:
        logits = torch.special.logit(torch.full((len(q), 2), panel.anchor_score, dtype=torch.float64))
        logits[:, moving] = moved
        return anchor_loss(logits, target, gamma, panel.anchor, reduction="none")

    return losses(torch.special.logit(q)) - losses(certain)


def draw_panel(axes: Axes, panel: Panel, colours: Mapping[float, str] = COLOURS) -> None:
    """Draw one panel: binary cross entropy dashed, anchor loss for each gamma, the anchor marked.

    `colours`: gamma -> colour; 0 is binary cross entropy.
    """
    # The anchors 0.2 and 0.8 are among these scores.
    q, ink = torch.linspace(0.005, 0.995, 397, dtype=torch.float64), colours[0.0]
    right = panel.anchor == "target"
    harder = (0.0, panel.anchor_score) if right else (panel.anchor_score, 1.0)
    axes.axvspan(*harder, color=ink, alpha=0.07, lw=0, label="AL above BCE")
    axes.axvline(panel.anchor_score, color=ink, alpha=0.6, lw=1.0, ls=":")
    for gamma, colour in colours.items():
        line: dict[str, Any] = {"label": "BCE", "ls": (0, (4, 2)), "zorder": 3}
        if gamma:
            line = {"label": rf"AL, $\gamma$ = {gamma:g}", "ls": "-", "zorder": 2}
        axes.plot(q, curve(panel, gamma, q), color=colour, lw=1.8, **line)
    at_anchor = curve(panel, 0.0, torch.tensor([panel.anchor_score], dtype=torch.float64)).item()
    axes.plot(panel.anchor_score, at_anchor, "o", color=ink, ms=5, zorder=4)
    axes.annotate(
        f"{panel.anchor_name} = {panel.anchor_score:g}",
        (panel.anchor_score, HIGHEST_LOSS),
        xytext=(5 if right else -5, -5),
        textcoords="offset points",
        ha="left" if right else "right",
        va="top",
    )
    axes.set(
        title=panel.title,
        xlabel=f"score of the {panel.anchor} class, $q$",
        ylabel=f"loss of the {panel.anchor} class",
        xlim=(0, 1),
        ylim=(0, HIGHEST_LOSS),
    )
    axes.legend(loc="upper right" if right else "upper left", frameon=False)


def render(file_format: str) -> bytes:
    """Draw the whole figure as `svg` or `png`: the same bytes every time with the same matplotlib."""
    from matplotlib.figure import Figure

    with look():
        figure = Figure(figsize=(9.0, 3.7), layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
            draw_panel(axes, panel)
        return to_bytes(figure, file_format)
