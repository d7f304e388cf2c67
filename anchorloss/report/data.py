"""Everything a report rests on, read once from an experiment's run folders and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anchorloss.data.class_names import class_name
from anchorloss.report.calibration import reliability
from anchorloss.report.comparison import REFERENCE, Comparison, compare_measures
from anchorloss.report.palette import Style, styles
from anchorloss.report.protocol import planned
from anchorloss.report.published import Published, published_for
from anchorloss.report.records import by_seed, order, processors
from anchorloss.report.table import SCORES, Table, build_table
from anchorloss.runs.folder import Predictions, Record, RunFolder, read_history, read_predictions, read_runs

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ExperimentData:
    """The runs of an experiment: all of them in `runs`, and what the finished ones left, by loss and seed.

    `losses` are in the order of Table 1, then others by name; one without a finished run has empty mappings.
    """

    experiment: str
    table: Table
    runs: tuple[RunFolder, ...]
    losses: tuple[str, ...]
    records: dict[str, dict[int, Record]]
    histories: dict[str, dict[int, pd.DataFrame]]
    predictions: dict[str, dict[int, Predictions]]
    published: dict[str, Published]
    reference: str = REFERENCE

    @cached_property
    def values(self) -> dict[str, dict[str, dict[int, float]]]:
        """measure -> loss -> seed -> percent, after the last epoch: `top1`, `top5`, `ece`."""
        found = {
            score: {loss: by_seed(own.values(), score) for loss, own in self.records.items()}
            for score in SCORES
        }
        found["ece"] = {
            loss: {seed: 100 * reliability(one).error for seed, one in own.items()}
            for loss, own in self.predictions.items()
        }
        return found

    @cached_property
    def comparisons(self) -> Mapping[str, tuple[Comparison, ...]]:
        """measure -> every loss against the reference; empty if the experiment does not have it."""
        trained_on = {loss: processors(own.values()) for loss, own in self.records.items()}
        return compare_measures(self.values, trained_on, self.reference)

    @cached_property
    def styles(self) -> dict[str, Style]:
        """What each loss is drawn with."""
        return styles(self.losses)

    def label(self, loss: str) -> str:
        """What the table calls the loss."""
        return self.table.label(loss)

    @property
    def reference_label(self) -> str:
        """What the table calls the loss that the others are compared with."""
        return self.label(self.reference)

    def published_difference(self, loss: str, measure: str) -> float | None:
        """The published difference from the reference in points; None where the paper has none, or on other data."""
        for row in self.table.rows:
            if row.loss == loss and measure in row.scores and self.table.data_label == "CIFAR-100":
                return row.scores[measure].published_difference
        return None

    @property
    def stamp(self) -> str | None:
        """What every section says when its numbers may not be compared with the paper's, else None."""
        return " · ".join((*self.table.stamps, self.experiment)) if self.table.stamps else None

    @cached_property
    def first(self) -> Record | None:
        """Any finished record: they agree in everything but loss and seed."""
        return next((record for by_seed in self.records.values() for record in by_seed.values()), None)

    @cached_property
    def classes(self) -> int:
        """Number of classes that occur among targets and predictions."""
        found = [one for by_seed in self.predictions.values() for one in by_seed.values()]
        return 1 + max((int(max(one.target.max(), one.predicted.max())) for one in found), default=-1)

    def class_name(self, index: int) -> str:
        """What class `index` is called."""
        return class_name(self.first.data if self.first else None, index)


def read_experiment(results_dir: Path, experiment: str, reference: str = REFERENCE) -> ExperimentData:
    """Read `<results_dir>/runs/<experiment>` and the published table; losses are compared with `reference`.

    Raises:
        UserError: No run has ended, a file is damaged or does not match its record, or the finished runs differ in a
            setting other than loss and seed.
    """
    runs = read_runs(results_dir, experiment)
    table = build_table(runs, experiment, planned(experiment), reference)
    losses = tuple(row.loss for row in table.rows)
    ordered = tuple(sorted(runs, key=lambda run: (order(run.loss), run.seed, run.name)))

    def by_loss(read: Callable[[RunFolder], Any]) -> dict[str, dict[int, Any]]:
        found: dict[str, dict[int, Any]] = {loss: {} for loss in losses}
        for run in ordered:
            if run.state == "finished":
                found[run.loss][run.seed] = read(run)
        return found

    return ExperimentData(
        experiment,
        table,
        ordered,
        losses,
        records=by_loss(lambda run: run.record),
        histories=by_loss(lambda run: read_history(run.folder)),
        predictions=by_loss(lambda run: read_predictions(run.folder)),
        published=published_for(table.data_label),
        reference=reference,
    )
