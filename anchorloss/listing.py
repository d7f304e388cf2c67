"""Every run of an experiment and the settings in which they differ: for experiments that no one table can hold."""

from __future__ import annotations

from pathlib import Path

from anchorloss.errors import UserError
from anchorloss.records import Record, describe_difference, read_runs
from anchorloss.table import made_from, order


def list_runs(results_dir: Path, experiment: str) -> str:
    """Markdown, a row a run: its loss, what of its settings is not the same in all, accuracies, when, and its commit.

    Raises: UserError if no run of the experiment has ended, or one is damaged.
    """
    records = [run.record for run in read_runs(results_dir, experiment) if run.record is not None]
    if not records:
        raise UserError(
            f"experiment={experiment}: no run has ended; run python train.py experiment={experiment}"
        )
    keys = _differing(records)
    records.sort(key=lambda record: (order(record.loss), record.provenance.started, record.seed))
    data = records[0].data
    sets = ", ".join(sorted({record.evaluated_on for record in records}))
    header = ["loss", *keys, "seed", "Top-1", "Top-5", "began", "ended", "commit"]
    lines = [
        f"# Every run of experiment {experiment}",
        "",
        f"{data.label}, {data.training_images:,} training images; accuracies in percent on the "
        f"{data.evaluation_images:,} {sets} images after the last epoch.",
        "",
        f"| {' | '.join(header)} |",
        f"|{'---|' * len(header)}",
    ]
    lines += [f"| {' | '.join(_cells(record, keys))} |" for record in records]
    return "\n".join([*lines, "", made_from(records), ""])


def _differing(records: list[Record]) -> list[str]:
    """The settings, loss and seed aside, that are not the same in all runs that have them."""
    first: dict[str, Record] = {}
    keys: set[str] = set()
    for record in records:
        for other, within_loss in ((records[0], False), (first.setdefault(record.loss, record), True)):
            difference = describe_difference(other.identity, record.identity)
            keys |= {key for key in difference if within_loss or not key.startswith("loss.")}
    return sorted(keys - {"seed"})


def _cells(record: Record, keys: list[str]) -> list[str]:
    settings = {key: value for key, (_, value) in describe_difference({}, record.identity).items()}
    made = record.provenance
    scores = [f"{score:.2f}" if score is not None else "failed" for score in (record.top1, record.top5)]
    times = [time.replace("+00:00", "Z") for time in (made.started, made.finished)]
    return [
        record.loss,
        *(settings.get(key, "") for key in keys),
        str(record.seed),
        *scores,
        *times,
        made.commit[:10],
    ]
