"""The learning curves of an experiment: a table with a row for each epoch of each run, and a figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anchorloss.report.markdown import document, markdown_table
from anchorloss.report.palette import SERIES
from anchorloss.report.plotting import picture, to_bytes
from anchorloss.report.records import (
    failure_text,
    made_from,
    order,
    require_one_protocol,
    require_reference,
)
from anchorloss.report.table import stamps
from anchorloss.runs.folder import HISTORY, RunFolder, read_ended, read_history

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = {
    "epoch": "epoch",
    "learning_rate": "learning rate",
    "train_loss": "training loss",
    "train_top1": "training Top-1",
    "test_loss": "loss",
    "top1": "Top-1",
    "top5": "Top-5",
}


@dataclass(frozen=True)
class Curves:
    """The histories of the runs that have ended, finished or failed.

    Attributes:
        stamp: What the figure's headline says: data set, and what is not the full protocol.
        protocol: A paragraph on what the columns are.
        histories: `bce seed 0` -> the columns of history.csv; with a reference also `top1_difference`, in points.
    """

    experiment: str
    stamp: str
    protocol: str
    histories: Mapping[str, pd.DataFrame]
    failures: tuple[str, ...]
    provenance: str
    reference: str | None = None


def read_curves(results_dir: Path, experiment: str, reference: str | None = None) -> Curves:
    """Read the histories of an experiment.

    With a loss as `reference`, they get `top1_difference`: Top-1 minus that loss's at the same seed and epoch.

    Raises:
        UserError: No run of the experiment has ended, two differ in more than loss and seed, a history is damaged or not
            its record's, or the reference has no run.
    """
    ended = sorted(read_ended(results_dir, experiment), key=lambda end: (order(end[0].loss), end[0].seed))
    records = [record for _, record in ended]
    require_one_protocol(records)
    # A run that failed in its first epoch has none.
    histories = {_name(run): read_history(run.folder) for run, record in ended if HISTORY in record.files}
    first = records[0]
    data = first.data
    if reference is not None:
        require_reference(reference, (record.loss for record in records))
        for name, history in histories.items():
            base = histories.get(f"{reference} {name.partition(' ')[2]}", history.iloc[:0])
            theirs = base.set_index("epoch")["top1"]
            history["top1_difference"] = history["top1"] - history["epoch"].map(theirs)
    return Curves(
        experiment,
        " - ".join([data.label, *stamps(records)]),
        f"{data.training_images:,} training images. Accuracies in percent: those of training on augmented images while "
        f"training, the others on the {data.evaluation_images:,} {first.evaluated_on} images after the epoch; the losses "
        "are a sample's mean, on the same images.",
        histories,
        tuple(f"failed: {_name(run)}{failure_text(run)}" for run, _ in ended if run.state == "failed"),
        made_from(records),
        reference,
    )


def to_markdown(curves: Curves) -> str:
    """Return a table with a row for each epoch of each run."""
    columns = dict(COLUMNS)
    if curves.reference is not None:
        columns["top1_difference"] = f"Top-1 - {curves.reference}, same seed"
    cells = [
        [name, *(_cell(key, row[key]) for key in columns)]
        for name, history in curves.histories.items()
        for _, row in history.iterrows()
    ]
    return document(
        f"# Every epoch of experiment {curves.experiment}",
        f"**{curves.stamp}**",
        curves.protocol,
        markdown_table(["run", *columns.values()], cells),
        *curves.failures,
        curves.provenance,
    )


def draw(curves: Curves) -> bytes:
    """Draw Top-1 by epoch in a colour for each run, on training images dashed; with a reference, the difference from it.

    Returns:
        SVG, the same bytes every time.
    """
    reference = curves.reference
    score = "top1" if reference is None else "top1_difference"
    with picture(6.5, 4.0, curves.stamp) as (figure, axes):
        for place, (name, history) in enumerate(curves.histories.items()):
            if name.partition(" ")[0] == reference:
                continue
            colour = SERIES[place % len(SERIES)]
            seen = history.dropna(subset=[score])
            axes.plot(seen["epoch"], seen[score], "o-", ms=3.5, color=colour, label=name)
            if reference is None:
                axes.plot(history["epoch"], history["train_top1"], "--", lw=1, color=colour)
        title = "after each epoch; dashed: on training images"
        if reference is None:
            axes.set(xlabel="epoch", ylabel="Top-1 in percent")
            axes.set_ylim(bottom=0)
        else:
            axes.set(xlabel="epoch", ylabel="points")
            axes.axhline(0, color="grey", lw=1)
            title = f"Top-1 minus {reference}, same seed"
        axes.set_title(title, loc="left", fontsize=10)
        axes.locator_params(axis="x", integer=True)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        return to_bytes(figure)


def _name(run: RunFolder) -> str:
    return f"{run.loss} seed {run.seed}"


def _cell(key: str, value: float) -> str:
    form = {"epoch": ".0f", "learning_rate": ".4g"}.get(key, ".2f")
    return "" if value != value else f"{value:{form}}"
