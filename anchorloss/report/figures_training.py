"""Pictures of training: learning curves, and how the modulating factors move."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from anchorloss.analysis.palette import MUTED, Style
from anchorloss.report.data import ExperimentData
from anchorloss.report.figures_scores import LineStyle, label_ends
from anchorloss.report.svg import inline, panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUANTILES = {"target": ("q50", "q90"), "background": ("q50", "q90", "q99")}
_DASHES: dict[str, LineStyle] = {"q50": "-", "q90": (0, (5, 2)), "q99": (0, (1, 1.5))}


def over_seeds(columns: Iterable[pd.Series]) -> pd.DataFrame:
    """One column of several histories by epoch: `mean`, `low`, `high`; epochs without a value left out."""
    rows = [column.to_numpy(float) for column in columns]
    values = np.full((len(rows), max(map(len, rows), default=0)), np.nan)
    for row, own in zip(values, rows, strict=True):
        row[: len(own)] = own
    seen = ~np.isnan(values).all(axis=0)
    values = values[:, seen]
    if not seen.any():
        return pd.DataFrame({"mean": [], "low": [], "high": []})
    found = {
        "mean": np.nanmean(values, axis=0),
        "low": np.nanmin(values, axis=0),
        "high": np.nanmax(values, axis=0),
    }
    return pd.DataFrame(found, index=np.flatnonzero(seen) + 1)


def _column(histories: Mapping[int, pd.DataFrame], name: str) -> list[pd.Series]:
    return [history[name] for history in histories.values() if name in history]


def learning_curve(
    data: ExperimentData,
    styles: Mapping[str, Style],
    column: str,
    title: str,
    name: str,
    last_share: float = 1.0,
) -> str | None:
    """Mean over seeds of `column` for each loss, band from the lowest to the highest seed.

    Args:
        data: The runs.
        styles: By loss.
        column: Of the histories.
        title: Of the figure.
        name: Unique in the page.
        last_share: Only the last part of training, with the axis fitted to it.

    Returns:
        The figure; None where no loss has a line, which takes values of two epochs.
    """
    curves = {loss: over_seeds(_column(data.histories[loss], column)) for loss in data.losses}
    curves = {loss: curve for loss, curve in curves.items() if len(curve) > 1}
    if not curves:
        return None
    start = max(curve.index.max() for curve in curves.values()) * (1 - last_share)
    if all((curve.index >= start).sum() < 2 for curve in curves.values()):
        return None
    with panel(5.0, 3.6) as (figure, axes):
        ends = []
        for loss, whole in curves.items():
            curve, style = whole[whole.index >= start], styles[loss]
            axes.fill_between(curve.index, curve["low"], curve["high"], color=style.colour, alpha=0.16, lw=0)
            axes.plot(curve.index, curve["mean"], color=style.colour)
            ends.append((float(curve["mean"].iloc[-1]), data.label(loss), style.colour, "-"))
        label_ends(axes, ends)
        axes.margins(x=0)
        axes.locator_params(axis="x", integer=True)
        axes.set_title(title)
        axes.set_xlabel("epoch")
    final = "; ".join(f"{text} {value:.2f}" for value, text, *_ in ends)
    return inline(figure, name, f"{title} over epochs, mean over seeds. At the end: {final}.")


def difference_curve(data: ExperimentData, styles: Mapping[str, Style], name: str) -> str | None:
    """Top-1 minus the reference's of the same seed by epoch: mean over seeds, band from the lowest to the highest.

    The last three quarters of training, where a difference can be seen; None without a line, which takes a shared seed
    and values of two epochs.
    """
    reference = data.histories.get(data.reference, {})
    curves = {}
    for loss in data.losses:
        curve = over_seeds(
            history["top1"] - reference[seed]["top1"]
            for seed, history in data.histories[loss].items()
            if seed in reference and loss != data.reference
        )
        curve = curve[curve.index >= curve.index.max() / 4]
        if len(curve) > 1:
            curves[loss] = curve
    if not curves:
        return None
    with panel(5.0, 3.6) as (figure, axes):
        axes.axhline(0, color=MUTED, lw=1.2)
        ends = []
        for loss, curve in curves.items():
            style = styles[loss]
            axes.fill_between(curve.index, curve["low"], curve["high"], color=style.colour, alpha=0.13, lw=0)
            axes.plot(curve.index, curve["mean"], color=style.colour)
            ends.append((float(curve["mean"].iloc[-1]), data.label(loss), style.colour, "-"))
        label_ends(axes, ends)
        axes.margins(x=0)
        axes.locator_params(axis="x", integer=True)
        axes.set_title(f"Top-1 minus {data.reference_label}, same seed")
        axes.set_xlabel("epoch")
        axes.set_ylabel("points")
    final = "; ".join(f"{text} {value:+.2f}" for value, text, *_ in ends)
    return inline(
        figure,
        name,
        f"Top-1 minus that of {data.reference_label} with the same seed over epochs. At the end: {final}.",
    )


def factors(data: ExperimentData, styles: Mapping[str, Style], side: str, name: str) -> str | None:
    """Quantiles over the evaluation set of the modulating factor of one side ("target" or "background") by epoch.

    Mean over seeds; None if no loss modulates that side in two epochs. A factor of 1 leaves binary cross entropy as it
    is.
    """
    losses = [loss for loss in data.losses if _modulates(data.histories[loss], side)]
    first = f"{side}_factor_{QUANTILES[side][0]}"
    losses = [loss for loss in losses if len(over_seeds(_column(data.histories[loss], first))) > 1]
    if not losses:
        return None
    with panel(5.0, 3.6) as (figure, axes):
        axes.axhline(1, color=MUTED, lw=1.2)
        ends = []
        for loss in losses:
            for quantile in QUANTILES[side]:
                curve = over_seeds(_column(data.histories[loss], f"{side}_factor_{quantile}"))
                style = styles[loss]
                axes.plot(curve.index, curve["mean"], color=style.colour, ls=_DASHES[quantile])
                percent = f"{int(quantile[1:])} %"
                ends.append(
                    (
                        float(curve["mean"].iloc[-1]),
                        f"{_short(data, loss)} {percent}",
                        style.colour,
                        _DASHES[quantile],
                    )
                )
        label_ends(axes, ends)
        axes.margins(x=0)
        axes.locator_params(axis="x", integer=True)
        _room_for_one(axes)
        axes.set_title(f"Factor on the {side} term")
        axes.set_xlabel("epoch; grey: BCE, factor 1")
    final = "; ".join(f"{text} {value:.2f}" for value, text, *_ in ends)
    return inline(
        figure, name, f"Quantiles of the modulating factor of the {side} term. At the end: {final}."
    )


def _modulates(histories: Mapping[int, pd.DataFrame], side: str) -> bool:
    """Whether any quantile ever leaves 1: histories have both sides' columns, also where a loss leaves one alone."""
    columns = [one for quantile in QUANTILES[side] for one in _column(histories, f"{side}_factor_{quantile}")]
    return any(bool((one.dropna() != 1).any()) for one in columns)


def _short(data: ExperimentData, loss: str) -> str:
    label = data.label(loss)
    return label.split()[0] if label.startswith("(") else label


def _room_for_one(axes: Axes) -> None:
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.97), max(high, 1.03))
