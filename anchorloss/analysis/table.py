"""Table 1 from run records: its content, and which runs cannot be in one table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from anchorloss.analysis.comparison import REFERENCE, difference_between, resolved_winner
from anchorloss.analysis.markdown import escape, one_line
from anchorloss.analysis.protocol import FULL, FULL_PROTOCOL, Plan, departures, interim
from anchorloss.analysis.published import PAPER_LOSSES, Published, published_for, read_published
from anchorloss.analysis.stats import Difference, Summary, summarise
from anchorloss.device import processor_kind
from anchorloss.errors import UserError
from anchorloss.runs.provenance import short_commit
from anchorloss.runs.store import Record, Run, differences


@dataclass(frozen=True)
class LossRow:
    """One loss: the last epoch's accuracies over its finished runs, in percent.

    The differences are from the reference over the seeds that both have. `best_…` marks the highest mean, if its
    difference from every other loss is resolved.
    """

    loss: str
    label: str
    planned: int
    failed: int
    top1: Summary
    top5: Summary
    published: Published | None
    top1_difference: Difference | None = None
    top5_difference: Difference | None = None
    best_top1: bool = False
    best_top5: bool = False

    @property
    def counted(self) -> str:
        """The number of finished runs, and of how many if some are missing."""
        count = str(self.top1.n) if self.top1.n == self.planned else f"{self.top1.n} of {self.planned}"
        return f"{count} ({self.failed} failed)" if self.failed else count


@dataclass(frozen=True)
class Table:
    """The rows, and the text above and below them."""

    experiment: str
    stamps: tuple[str, ...]
    protocol: str
    rows: tuple[LossRow, ...]
    notes: tuple[str, ...]
    provenance: str
    data_label: str
    evaluated_on: str
    reference: str = REFERENCE
    interim: str | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """What the title says: how the runs differ from the paper's, and whether planned seeds are missing."""
        return (*self.stamps, *([self.interim] if self.interim else ()))

    @property
    def reference_row(self) -> LossRow | None:
        """The row of the loss that the others are compared with."""
        return next((row for row in self.rows if row.loss == self.reference), None)

    @property
    def title(self) -> str:
        return " - ".join([f"Table 1, experiment {self.experiment}", *self.labels])


def build_table(
    runs: Iterable[Run], experiment: str, plan: Plan | None = None, reference: str = REFERENCE
) -> Table:
    """Build the table of these runs. It counts or lists every one of them, and lists every run of `plan` that is missing.

    Args:
        runs: The runs of one experiment.
        experiment: Its name.
        plan: What its config plans.
        reference: The loss that the differences are from.

    Raises:
        UserError: No run has a record, finished runs differ in more than loss and seed, or `reference` has no run.
    """
    runs = list(runs)
    records = [run.record for run in runs if run.record is not None]
    if not records:
        planned = f"none of the {len(runs)} runs has ended" if runs else "there are no runs"
        command = f"python train.py experiment={experiment}"
        raise UserError(f"experiment={experiment}: {planned}, so there is no table; run {command}")
    finished = [record for record in records if record.status == "finished"]
    require_one_protocol(finished)
    if reference != REFERENCE:
        require_reference(reference, runs)
    first = (finished or records)[0]
    return Table(
        experiment=experiment,
        stamps=stamps(finished or records),
        protocol=_protocol(first),
        rows=_rows(runs, plan, published_for(first.data.label), reference),
        notes=_notes(runs, plan),
        provenance=made_from(records),
        data_label=first.data.label,
        evaluated_on=first.evaluated_on,
        reference=reference,
        interim=interim(runs, plan),
    )


def require_reference(reference: str, runs: Iterable[Run]) -> None:
    """Refuse a reference that was named and has no run.

    Raises:
        UserError: It has none.
    """
    losses = sorted({run.loss for run in runs}, key=order)
    if reference not in losses:
        raise UserError(f"--reference {reference}: has no run; use one of {', '.join(losses)}")


def planned_table() -> Table:
    """Build Table 1 at the full protocol before its first run: the paper's losses and figures alone."""
    published = read_published()
    nothing = summarise({})
    return Table(
        experiment=FULL,
        stamps=(),
        protocol=f"CIFAR-100, {FULL_PROTOCOL['model']['name']}, {FULL_PROTOCOL['optim']['epochs']} epochs.",
        rows=tuple(
            LossRow(loss, _label(loss, published), 0, 0, nothing, nothing, published.get(loss))
            for loss in PAPER_LOSSES
        ),
        notes=(),
        provenance="Made from no record.",
        data_label="CIFAR-100",
        evaluated_on="test",
    )


def require_one_protocol(records: Iterable[Record]) -> None:
    """Refuse records that differ in more than loss and seed; those of one loss may differ in the seed alone.

    Raises:
        UserError: Two records differ in other settings; the message names them.
    """
    records = list(records)
    for first, second, difference in differences([(record.loss, _settings(record)) for record in records]):
        raise UserError(_refusal(difference, records[first], records[second]))


def order(loss: str) -> tuple[int, str]:
    """Return a sort key: losses in the order of the paper's table, others after them by name."""
    return (PAPER_LOSSES.index(loss) if loss in PAPER_LOSSES else len(PAPER_LOSSES), loss)


def _settings(record: Record) -> dict[str, object]:
    """What must be equal in one table: the identity, and what the record says of the data it saw."""
    data = record.data.model_dump()
    return {
        **record.identity,
        "record": {"data": data, "evaluated_on": record.evaluated_on, "epochs": record.epochs},
    }


def _refusal(difference: dict[str, tuple[str, str]], first: Record, second: Record) -> str:
    named = "; ".join(
        f"{key} is {ours} in one, {theirs} in the other" for key, (ours, theirs) in difference.items()
    )
    return (
        f"{first.run} and {second.run} cannot stand in one table: {named}; "
        "move the runs of one of them away, or train them under another experiment.name"
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


def _protocol(record: Record) -> str:
    data = record.data
    return (
        f"{data.label}, {record.model}, {record.epochs} epochs, {data.training_images:,} training images. Accuracy in "
        f"percent on the {data.evaluation_images:,} {record.evaluated_on} images after the last epoch, mean ± sample "
        "standard deviation (n - 1) over n seeds."
    )


def _rows(
    runs: list[Run], plan: Plan | None, of_paper: dict[str, Published], reference: str
) -> tuple[LossRow, ...]:
    published = read_published()
    losses, seeds = _expected(runs, plan)
    records = {loss: [run.record for run in runs if run.loss == loss and run.record] for loss in losses}
    finished = {loss: [r for r in own if r.status == "finished"] for loss, own in records.items()}
    processors = {
        loss: {record.seed: processor_kind(record.provenance.device) for record in own}
        for loss, own in finished.items()
    }
    found: dict[str, dict[str, Any]] = {loss: {} for loss in losses}
    for score in ("top1", "top5"):
        values = {loss: {r.seed: float(getattr(r, score)) for r in own} for loss, own in finished.items()}
        winner = resolved_winner(values, processors)
        for loss, own in values.items():
            found[loss][score] = summarise(own)
            found[loss][f"best_{score}"] = loss == winner
            if loss != reference and reference in values:
                against = difference_between(values, loss, reference, processors)
                found[loss][f"{score}_difference"] = against
    return tuple(
        LossRow(
            loss=loss,
            label=_label(loss, published),
            planned=len(seeds),
            failed=len(records[loss]) - len(finished[loss]),
            published=of_paper.get(loss),
            **found[loss],
        )
        for loss in losses
    )


def _label(loss: str, published: dict[str, Published]) -> str:
    return published[loss].label if loss in published else loss.replace("_", " ")


def _expected(runs: list[Run], plan: Plan | None) -> tuple[list[str], list[int]]:
    """The losses and seeds that the table should have: those of any run, and those of the plan."""
    losses, seeds = {run.loss for run in runs}, {run.seed for run in runs}
    if plan is not None:
        losses, seeds = losses.union(plan.losses), seeds.union(plan.seeds)
    return sorted(losses, key=order), sorted(seeds)


def _notes(runs: list[Run], plan: Plan | None) -> tuple[str, ...]:
    """One note for every run that is not in the means, and for every one that is not there at all."""
    notes = []
    losses, seeds = _expected(runs, plan)
    seen = {run.seed for run in runs}
    for loss in losses:
        own = [run for run in runs if run.loss == loss]
        for run in own:
            if run.state != "finished":
                notes.append(f"{run.state}: {run.name}{failure_text(run)}")
        if not own:
            notes.append(f"missing: {loss}, which the experiment plans")
            continue
        absent = [seed for seed in seeds if seed not in {run.seed for run in own}]
        elsewhere, planned = ([seed for seed in absent if (seed in seen) is there] for there in (True, False))
        for missing, whose in ((elsewhere, "other losses have"), (planned, "the experiment plans")):
            if missing:
                plural = "s" if len(missing) > 1 else ""
                notes.append(f"missing: {loss} seed{plural} {', '.join(map(str, missing))}, which {whose}")
    return tuple(notes)


def failure_text(run: Run) -> str:
    """Return why a run failed, to follow its name; empty for other runs."""
    failure = run.record.failure if run.record else None
    if failure is None:
        return ""
    text = f": {one_line(failure.reason)} in epoch {failure.epoch}"
    if failure.step >= 0:  # an evaluation has no step
        text += f", step {failure.step}"
    last = failure.last_finite_loss
    return text if last is None else f"{text}, last finite loss {last:.4g}"


def made_from(records: Iterable[Record]) -> str:
    """Return the line below every table, in Markdown: how many records, of which commits, on which devices."""
    made = [record.provenance for record in records]
    commits = sorted({short_commit(one.commit, one.dirty) for one in made})
    devices = sorted({escape(one.device) for one in made})
    return f"Made from {len(made)} records; commit {', '.join(commits)}; on {', '.join(devices)}."
