"""Pictures of training: learning curves, and how the modulating factors move."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from anchorloss.report.data import ExperimentData
from anchorloss.report.lines import Line, LineStyle, label_ends
from anchorloss.report.palette import MUTED
from anchorloss.report.svg import inline, panel

QUANTILES = {"target": ("q50", "q90"), "background": ("q50", "q90", "q99")}
_DASHES: dict[str, LineStyle] = {"q50": "-", "q90": (0, (5, 2)), "q99": (0, (1, 1.5))}


class Curve(NamedTuple):
    """What `over_seeds` returns, and what it is called and looks like."""

    values: pd.DataFrame
    label: str
    colour: str
    style: LineStyle = "-"


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
    data: ExperimentData, column: str, title: str, name: str, last_share: float = 1.0
) -> str | None:
    """Mean over seeds of `column` for each loss, band from the lowest to the highest seed.

    Args:
        data: The runs.
        column: Of the histories.
        title: Of the figure.
        name: Unique in the page.
        last_share: Only the last part of training, with the axis fitted to it.

    Returns:
        The figure; None where no loss has a line, which takes values of two epochs.
    """
    found = {loss: over_seeds(_column(data.histories[loss], column)) for loss in data.losses}
    found = {loss: values for loss, values in found.items() if len(values) > 1}
    start = max((values.index.max() for values in found.values()), default=0) * (1 - last_share)
    found = {loss: values[values.index >= start] for loss, values in found.items()}
    if all(len(values) < 2 for values in found.values()):
        return None
    curves = [Curve(values, data.label(loss), data.styles[loss].colour) for loss, values in found.items()]
    return _draw(curves, name, title, f"{title} over epochs, mean over seeds.", band=0.16)


def difference_curve(data: ExperimentData, name: str) -> str | None:
    """Top-1 minus the reference's of the same seed by epoch: mean over seeds, band from the lowest to the highest.

    The last three quarters of training, where a difference can be seen; None without a line, which takes a shared seed
    and values of two epochs.
    """
    reference = data.histories.get(data.reference, {})
    curves = []
    for loss in data.losses:
        values = over_seeds(
            history["top1"] - reference[seed]["top1"]
            for seed, history in data.histories[loss].items()
            if seed in reference and loss != data.reference
        )
        values = values[values.index >= values.index.max() / 4]
        if len(values) > 1:
            curves.append(Curve(values, data.label(loss), data.styles[loss].colour))
    if not curves:
        return None
    title = f"Top-1 minus {data.reference_label}, same seed"
    said = f"Top-1 minus that of {data.reference_label} with the same seed over epochs."
    return _draw(curves, name, title, said, "{:+.2f}", band=0.13, level=0, ylabel="points")


def factors(data: ExperimentData, side: str, name: str) -> str | None:
    """Quantiles over the evaluation set of the modulating factor of one side ("target" or "background") by epoch.

    Mean over seeds; None if no loss modulates that side in two epochs. A factor of 1 leaves binary cross entropy as it
    is.
    """
    curves: list[Curve] = []
    for loss in data.losses:
        found = [over_seeds(_column(data.histories[loss], f"{side}_factor_{q}")) for q in QUANTILES[side]]
        # Histories have both sides' columns, also where a loss leaves one alone.
        modulates = any((values[["low", "high"]] != 1).any(axis=None) for values in found)
        if not modulates or len(found[0]) < 2:
            continue
        label = data.label(loss)
        short = label.split()[0] if label.startswith("(") else label
        for quantile, values in zip(QUANTILES[side], found, strict=True):
            text = f"{short} {int(quantile[1:])} %"
            curves.append(Curve(values, text, data.styles[loss].colour, _DASHES[quantile]))
    if not curves:
        return None
    title, said = f"Factor on the {side} term", f"Quantiles of the modulating factor of the {side} term."
    return _draw(curves, name, title, said, level=1, room=0.03, xlabel="epoch; grey: BCE, factor 1")


def _draw(
    curves: Sequence[Curve],
    name: str,
    title: str,
    said: str,
    form: str = "{:.2f}",
    *,
    band: float = 0.0,
    level: float | None = None,
    room: float = 0.0,
    xlabel: str = "epoch",
    ylabel: str = "",
) -> str:
    """Curves by epoch, named at their ends.

    said: the description, which the last values in `form` follow. band: opacity of the bands from low to high. level: of
    a grey line; `room` is how much of the axis to show beside it at least.
    """
    with panel(5.0, 3.6) as (figure, axes):
        if level is not None:
            axes.axhline(level, color=MUTED, lw=1.2)
        lines = []
        for values, label, colour, style in curves:
            if band:
                axes.fill_between(values.index, values["low"], values["high"], color=colour, alpha=band, lw=0)
            axes.plot(values.index, values["mean"], color=colour, ls=style)
            lines.append(Line(float(values["mean"].iloc[-1]), label, colour, style))
        label_ends(axes, lines)
        axes.margins(x=0)
        axes.locator_params(axis="x", integer=True)
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
        if level is not None and room:
            low, high = axes.get_ylim()
            axes.set_ylim(min(low, level - room), max(high, level + room))
    final = "; ".join(f"{line.name} {form.format(line.last)}" for line in lines)
    return inline(figure, name, f"{said} At the end: {final}.")
