"""Table 1 from run records: its content, and which runs cannot be in one table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from anchorloss.errors import UserError
from anchorloss.report.comparison import REFERENCE, difference_between, resolved_winner
from anchorloss.report.protocol import FULL, FULL_PROTOCOL, Plan, departures, interim
from anchorloss.report.published import PAPER_LOSSES, Published, published_for, read_published
from anchorloss.report.records import (
    by_seed,
    failure_text,
    finished,
    made_from,
    order,
    processors,
    require_one_protocol,
    require_reference,
)
from anchorloss.report.stats import Difference, Summary, summarise
from anchorloss.runs.folder import Record, RunFolder

SCORES = {"top1": "Top-1", "top5": "Top-5"}


@dataclass(frozen=True)
class Score(Summary):
    """One score of a loss: the last epoch's over its finished runs, in percent.

    Attributes:
        published: The paper's mean and standard deviation.
        difference: From the reference, over the seeds that both have.
        published_difference: The paper's mean minus that of the reference.
        best: Whether it is the highest mean, and its difference from every other loss is resolved.
    """

    published: tuple[float, float] | None
    difference: Difference | None
    published_difference: float | None
    best: bool


@dataclass(frozen=True)
class LossRow:
    """One loss, and how many of its planned runs there are."""

    loss: str
    label: str
    planned: int
    failed: int
    top1: Score
    top5: Score

    @property
    def scores(self) -> dict[str, Score]:
        """Top-1 and Top-5 by the keys of `SCORES`."""
        return {"top1": self.top1, "top5": self.top5}

    @property
    def counted(self) -> str:
        """The number of finished runs, and of how many if some are missing."""
        count = str(self.top1.n) if self.top1.n == self.planned else f"{self.top1.n} of {self.planned}"
        return f"{count} ({self.failed} failed)" if self.failed else count


@dataclass(frozen=True)
class Table:
    """The rows, and the text above and below them."""

    experiment: str
    protocol: str
    rows: tuple[LossRow, ...]
    provenance: str
    data_label: str
    evaluated_on: str
    stamps: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    reference: str = REFERENCE
    interim: str | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """What the title says: how the runs differ from the paper's, and whether planned seeds are missing."""
        return (*self.stamps, *([self.interim] if self.interim else ()))

    def label(self, loss: str) -> str:
        """Return what a loss is called."""
        labels = {REFERENCE: "BCE"} | {row.loss: row.label for row in self.rows}
        return labels.get(loss, loss)

    def above_paper(self, score: Score) -> float | None:
        """Return a mean minus the paper's, in points; None unless the runs are at the full protocol."""
        if self.stamps or score.published is None or score.mean is None:
            return None
        return score.mean - score.published[0]

    @property
    def title(self) -> str:
        return " - ".join([f"Table 1, experiment {self.experiment}", *self.labels])


def build_table(
    runs: Iterable[RunFolder], experiment: str, plan: Plan | None = None, reference: str = REFERENCE
) -> Table:
    """Build the table of these runs. It counts or lists every one of them, and lists every run of `plan` that is missing.

    The differences are from the loss `reference`.

    Raises:
        UserError: No run has a record, finished runs differ in more than loss and seed, or `reference` has no run.
    """
    runs = list(runs)
    records = [run.record for run in runs if run.record is not None]
    if not records:
        planned = f"none of the {len(runs)} runs has ended" if runs else "there are no runs"
        command = f"python train.py experiment={experiment}"
        raise UserError(f"experiment={experiment}: {planned}, so there is no table; run {command}")
    ended_well = finished(runs)
    require_one_protocol(ended_well)
    if reference != REFERENCE:
        require_reference(reference, (run.loss for run in runs))
    first = (ended_well or records)[0]
    expected = plan or Plan((), ())
    losses = sorted({run.loss for run in runs}.union(expected.losses), key=order)
    seeds = sorted({run.seed for run in runs}.union(expected.seeds))
    data = first.data
    return Table(
        experiment=experiment,
        stamps=stamps(ended_well or records),
        protocol=(
            f"{data.label}, {first.model}, {first.epochs} epochs, {data.training_images:,} training images. Accuracy "
            f"in percent on the {data.evaluation_images:,} {first.evaluated_on} images after the last epoch, "
            "mean ± sample standard deviation (n - 1) over n seeds. A difference is over the seeds that a loss shares "
            "with the reference, and need not be that of the two means; its 95 % interval is not corrected for several "
            "comparisons."
        ),
        rows=_rows(losses, seeds, runs, published_for(data.label), reference),
        notes=_notes(losses, seeds, runs),
        provenance=made_from(records),
        data_label=data.label,
        evaluated_on=first.evaluated_on,
        reference=reference,
        interim=interim(runs, plan),
    )


def planned_table() -> Table:
    """Build Table 1 at the full protocol before its first run: the paper's losses and figures alone."""
    return Table(
        experiment=FULL,
        protocol=f"CIFAR-100, {FULL_PROTOCOL['model']['name']}, {FULL_PROTOCOL['optim']['epochs']} epochs.",
        rows=_rows(PAPER_LOSSES, (), [], read_published(), REFERENCE),
        provenance="Made from no record.",
        data_label="CIFAR-100",
        evaluated_on="test",
    )


def stamps(records: Sequence[Record]) -> tuple[str, ...]:
    """List why the numbers of these records cannot be compared with the paper's; empty at the full protocol."""
    said, first = [], records[0]
    if first.data.label != "CIFAR-100":
        said.append("SYNTHETIC data" if first.data.label == "SYNTHETIC" else f"{first.data.label} data")
    other = sorted({departure for record in records for departure in departures(record)})
    if other or first.experiment != FULL:
        coarse = any(departure.startswith(("model.name ", "optim.epochs ")) for departure in other)
        named = f"{first.model}, {first.epochs} epochs" if coarse or not other else ", ".join(other)
        said.append(f"NOT THE FULL PROTOCOL ({named})")
    if first.evaluated_on != "test":
        said.append("evaluated on held-out VALIDATION images")
    return tuple(said)


def _rows(
    losses: Sequence[str],
    seeds: Sequence[int],
    runs: list[RunFolder],
    paper: dict[str, Published],
    reference: str,
) -> tuple[LossRow, ...]:
    labels = {loss: row.label for loss, row in read_published().items()}
    records = {loss: finished(run for run in runs if run.loss == loss) for loss in losses}
    top1, top5 = (_scores(score, records, paper, reference) for score in SCORES)
    return tuple(
        LossRow(
            loss=loss,
            label=labels.get(loss, loss.replace("_", " ")),
            planned=len(seeds),
            failed=sum(run.loss == loss and run.state == "failed" for run in runs),
            top1=top1[loss],
            top5=top5[loss],
        )
        for loss in losses
    )


def _scores(
    name: str, records: dict[str, list[Record]], paper: dict[str, Published], reference: str
) -> dict[str, Score]:
    """One score of every loss; `records` are the finished ones, by loss."""
    values = {loss: by_seed(own, name) for loss, own in records.items()}
    trained_on = {loss: processors(own) for loss, own in records.items()}
    published = {loss: row.score(name) for loss, row in paper.items()}
    winner = resolved_winner(values, trained_on)
    scores = {}
    for loss, own in values.items():
        claimed, base = published.get(loss), published.get(reference)
        compared = loss != reference and reference in values
        scores[loss] = Score(
            **vars(summarise(own)),
            published=claimed,
            difference=difference_between(values, loss, reference, trained_on) if compared else None,
            published_difference=claimed[0] - base[0] if compared and claimed and base else None,
            best=loss == winner,
        )
    return scores


def _notes(losses: list[str], seeds: list[int], runs: list[RunFolder]) -> tuple[str, ...]:
    """One note for every run that is not in the means, and for every one that is not there at all."""
    notes = []
    seen = {run.seed for run in runs}
    for loss in losses:
        own = [run for run in runs if run.loss == loss]
        notes += [f"{run.state}: {run.name}{failure_text(run)}" for run in own if run.state != "finished"]
        if not own:
            notes.append(f"not run: {loss}")
            continue
        absent = [seed for seed in seeds if seed not in {run.seed for run in own}]
        for there, remark in ((True, ", which other losses have"), (False, "")):
            if missing := [seed for seed in absent if (seed in seen) is there]:
                plural = "s" if len(missing) > 1 else ""
                notes.append(f"not run: {loss} seed{plural} {', '.join(map(str, missing))}{remark}")
    return tuple(notes)
