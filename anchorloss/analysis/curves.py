"""How the runs of an experiment learn, epoch by epoch, from their histories: a table of every epoch and a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anchorloss.analysis.plotting import COLOURS, picture
from anchorloss.analysis.table import failure_text, made_from, order, require_one_protocol, stamps
from anchorloss.runs.store import HISTORY, Record, Run, read_ended, read_history, verify_files

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
    """The histories of runs that have ended, finished or failed, by what they are called: `bce seed 0`."""

    experiment: str
    stamp: str
    protocol: str
    histories: Mapping[str, pd.DataFrame]
    failures: tuple[str, ...]
    provenance: str


def read_curves(results_dir: Path, experiment: str) -> Curves:
    """Raises: UserError if no run of the experiment has ended, if two differ in more than loss and seed, or if a
    history is damaged or not its record's.
    """
    ended = sorted(read_ended(results_dir, experiment), key=lambda end: (order(end[0].loss), end[0].seed))
    records = [record for _, record in ended]
    require_one_protocol(records)
    histories = {
        _name(run): history for run, record in ended if (history := _history(run, record)) is not None
    }
    first = records[0]
    data = first.data
    return Curves(
        experiment,
        " - ".join([data.label, *stamps(records)]),
        f"{data.training_images:,} training images. Accuracies in percent: those of training on augmented images while "
        f"training, the others on the {data.evaluation_images:,} {first.evaluated_on} images after the epoch; the losses "
        "are a sample's mean, on the same images.",
        histories,
        tuple(f"failed: {_name(run)}{failure_text(run)}" for run, _ in ended if run.state == "failed"),
        made_from(records),
    )


def to_markdown(curves: Curves) -> str:
    """A row an epoch of each run."""
    lines = [
        f"# Every epoch of experiment {curves.experiment}",
        "",
        f"**{curves.stamp}**",
        "",
        curves.protocol,
        "",
        f"| run | {' | '.join(COLUMNS.values())} |",
        f"|---|{'---|' * len(COLUMNS)}",
    ]
    for name, history in curves.histories.items():
        for _, row in history.iterrows():
            lines.append(f"| {name} | {' | '.join(_cell(key, row[key]) for key in COLUMNS)} |")
    return "\n".join([*lines, "", *(f"{failure}\n" for failure in curves.failures), curves.provenance, ""])


def draw(curves: Curves) -> bytes:
    """Top-1 by epoch, of training dashed, a colour a run; SVG, the same bytes every time."""
    with picture(6.5, 4.0, curves.stamp) as drawn:
        axes = drawn.axes
        for place, (name, history) in enumerate(curves.histories.items()):
            colour = COLOURS[place % len(COLOURS)]
            seen = history.dropna(subset=["top1"])
            axes.plot(seen["epoch"], seen["top1"], "o-", ms=3.5, color=colour, label=name)
            axes.plot(history["epoch"], history["train_top1"], "--", lw=1, color=colour)
        axes.set_xlabel("epoch")
        axes.set_ylabel("Top-1 in percent")
        axes.set_title("after each epoch; dashed: on training images", loc="left", fontsize=10)
        axes.locator_params(axis="x", integer=True)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    return drawn.svg


def _history(run: Run, record: Record) -> pd.DataFrame | None:
    """A run that failed in its first epoch has none."""
    if HISTORY not in record.files:
        return None
    verify_files(run.folder, record)
    return read_history(run.folder)


def _name(run: Run) -> str:
    return f"{run.loss} seed {run.seed}"


def _cell(key: str, value: float) -> str:
    if value != value:
        return ""
    if key == "epoch":
        return f"{value:.0f}"
    return f"{value:.4g}" if key == "learning_rate" else f"{value:.2f}"
