"""Everything a report rests on, read once from an experiment's run folders and checked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from anchorloss.analysis.protocol import planned
from anchorloss.analysis.published import Published, read_published
from anchorloss.analysis.table import Table, build_table, order
from anchorloss.data.class_names import class_name
from anchorloss.errors import UserError
from anchorloss.runs.store import (
    Predictions,
    Record,
    Run,
    read_history,
    read_predictions,
    read_runs,
    verify_files,
)

if TYPE_CHECKING:
    import pandas as pd

REFERENCE = "bce"


@dataclass(frozen=True)
class Evidence:
    """The finished runs by loss and seed, and every run folder of the experiment whatever its state.

    `losses` stand in the order of Table 1, then others by name; one without a finished run has empty
    mappings.
    """

    experiment: str
    table: Table
    runs: tuple[Run, ...]
    losses: tuple[str, ...]
    records: dict[str, dict[int, Record]]
    histories: dict[str, dict[int, pd.DataFrame]]
    answers: dict[str, dict[int, Predictions]]
    published: dict[str, Published]

    def values(self, score: str) -> dict[str, dict[int, float]]:
        """loss -> seed -> `top1` or `top5` of the last epoch, in percent."""
        return {
            loss: {seed: getattr(record, score) for seed, record in by_seed.items()}
            for loss, by_seed in self.records.items()
        }

    def label(self, loss: str) -> str:
        """What the table calls the loss."""
        return next((row.label for row in self.table.rows if row.loss == loss), loss)

    def published_difference(self, loss: str, score: str) -> float | None:
        """The paper's loss minus its BCE in points; None where it does not have the loss, or on other data."""
        if (
            self.table.data_label != "CIFAR-100"
            or loss not in self.published
            or REFERENCE not in self.published
        ):
            return None
        key = f"{score}_mean"
        return float(getattr(self.published[loss], key) - getattr(self.published[REFERENCE], key))

    @property
    def stamp(self) -> str | None:
        """What every picture says when the numbers may not be held against the paper's, else None."""
        return " · ".join((*self.table.stamps, self.experiment)) if self.table.stamps else None

    @cached_property
    def first(self) -> Record | None:
        """Any finished record: they agree in everything but loss and seed."""
        return next((record for by_seed in self.records.values() for record in by_seed.values()), None)

    @cached_property
    def classes(self) -> int:
        """Number of classes that occur among targets and answers."""
        answers = [predictions for by_seed in self.answers.values() for predictions in by_seed.values()]
        return 1 + max((int(max(a.target.max(), a.predicted.max())) for a in answers), default=-1)

    def class_name(self, index: int) -> str:
        """What class `index` is called."""
        return class_name(self.first.data.name if self.first else "", index)


def read_evidence(results_dir: Path, experiment: str) -> Evidence:
    """Read `<results_dir>/runs/<experiment>` and the published table.

    Raises: UserError if no run has ended, a file is damaged or does not match its record, or the finished
    runs differ in a setting other than loss and seed.
    """
    runs = read_runs(results_dir, experiment)
    table = build_table(runs, experiment, planned(experiment))
    losses = [row.loss for row in table.rows]
    evidence = Evidence(
        experiment,
        table,
        tuple(sorted(runs, key=lambda run: (order(run.loss), run.seed, run.name))),
        tuple(losses),
        {loss: {} for loss in losses},
        {loss: {} for loss in losses},
        {loss: {} for loss in losses},
        read_published(),
    )
    for run in runs:
        if run.record is None or run.record.status != "finished":
            continue
        verify_files(run.folder, run.record)
        answers = read_predictions(run.folder)
        if len(answers.target) == 0:
            raise UserError(f"{run.folder}: predictions.npz holds no image; restore it from a copy")
        evidence.records[run.loss][run.seed] = run.record
        evidence.histories[run.loss][run.seed] = read_history(run.folder)
        evidence.answers[run.loss][run.seed] = answers
    return evidence
