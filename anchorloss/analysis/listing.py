"""Every run of an experiment and the settings in which they differ: for experiments that no one table can hold."""

from __future__ import annotations

from pathlib import Path

from anchorloss.analysis.table import made_from, order
from anchorloss.runs.provenance import short_commit
from anchorloss.runs.store import Record, describe_difference, differences, read_ended


def list_runs(results_dir: Path, experiment: str) -> str:
    """Markdown, a row a run: its loss, what of its settings is not the same in all, accuracies, when, and its commit.

    Raises: UserError if no run of the experiment has ended, or one is damaged.
    """
    records = [record for _, record in read_ended(results_dir, experiment)]
    differing = differences([(record.loss, record.identity) for record in records])
    keys = sorted({key for *_, difference in differing for key in difference})
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
        short_commit(made.commit, made.dirty),
    ]
