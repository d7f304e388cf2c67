"""Run records as statistics take them: scores by seed, which records can be in one table, and where they come from."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from anchorloss.device import processor_kind
from anchorloss.errors import UserError
from anchorloss.report.markdown import escape, one_line
from anchorloss.report.published import PAPER_LOSSES
from anchorloss.runs.differences import differences
from anchorloss.runs.folder import Record, RunFolder
from anchorloss.runs.provenance import short_commit


def finished(runs: Iterable[RunFolder]) -> list[Record]:
    """Return the records of the runs that have finished."""
    return [run.record for run in runs if run.record is not None and run.record.status == "finished"]


def by_seed(records: Iterable[Record], score: str) -> dict[int, float]:
    """Return seed -> `score`, "top1" or "top5" in percent, of finished records."""
    return {record.seed: getattr(record, score) for record in records}


def processors(records: Iterable[Record]) -> dict[int, str]:
    """Return seed -> kind of processor that trained the run."""
    return {record.seed: processor_kind(record.provenance.device) for record in records}


def order(loss: str) -> tuple[int, str]:
    """Return a sort key: losses in the order of the paper's table, others after them by name."""
    return (PAPER_LOSSES.index(loss) if loss in PAPER_LOSSES else len(PAPER_LOSSES), loss)


def require_reference(reference: str, losses: Iterable[str]) -> None:
    """Refuse a reference that was named and has no run.

    Raises:
        UserError: It is not one of `losses`, those with a run.
    """
    known = sorted(set(losses), key=order)
    if reference not in known:
        raise UserError(f"--reference {reference}: has no run; use one of {', '.join(known)}")


def require_one_protocol(records: Iterable[Record], *, apart_from: Collection[str] = ()) -> None:
    """Refuse records that differ in more than loss and seed; those of one loss may differ in the seed alone.

    Args:
        records: What is to be compared.
        apart_from: Keys of the identity in which they may differ too.

    Raises:
        UserError: Two records differ in other settings; the message names them.
    """
    records = list(records)
    runs = [
        (record.loss, {key: value for key, value in _settings(record).items() if key not in apart_from})
        for record in records
    ]
    for first, second, difference in differences(runs):
        named = "; ".join(
            f"{key} is {ours} in one, {theirs} in the other" for key, (ours, theirs) in difference.items()
        )
        raise UserError(
            f"{records[first].run} and {records[second].run} cannot stand in one table: {named}; "
            "move the runs of one of them away, or train them under another experiment.name"
        )


def _settings(record: Record) -> dict[str, object]:
    """What must be equal in one table: the identity, and what the record says of the data it saw."""
    data = record.data.model_dump()
    return {
        **record.identity,
        "record": {"data": data, "evaluated_on": record.evaluated_on, "epochs": record.epochs},
    }


def failure_text(run: RunFolder) -> str:
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
    count = f"{len(made)} record{'' if len(made) == 1 else 's'}"
    return f"Made from {count}; commit {', '.join(commits)}; on {', '.join(devices)}."
