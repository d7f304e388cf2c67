"""Figure 1 of the supplement in the page, drawn from the loss code where torch is installed."""

from __future__ import annotations

from anchorloss.report.data import ExperimentData
from anchorloss.report.palette import VARIABLES
from anchorloss.report.svg import inline, panel
from anchorloss.report.text import Content

# By gamma; 0 is BCE. The hues of no loss: a gamma is none.
_COLOURS = {
    0.0: VARIABLES["loss-bce"][0],
    0.5: VARIABLES["loss-other-1"][0],
    1.0: VARIABLES["loss-other-2"][0],
    2.0: VARIABLES["loss-other-3"][0],
}


def loss_itself(data: ExperimentData) -> Content:
    """Both panels; no figure where torch is missing."""
    try:
        from anchorloss.report.figure1 import PANELS, draw_panel
    except ImportError as error:
        if (error.name or "").split(".")[0] != "torch":
            raise
        return {"figures": []}
    pictures = []
    for half in PANELS:
        with panel(5.0, 3.6) as (figure, axes):
            draw_panel(axes, half, _COLOURS)
            # A browser's text of mathematics is taller than matplotlib reckons.
            axes.xaxis.labelpad = 12
            said = f"{half.title}: BCE and anchor loss against the score of the {half.anchor} class."
            pictures.append((inline(figure, f"figure1-{half.anchor}", said), ""))
    return {"figures": pictures}
