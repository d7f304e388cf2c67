"""Every run of an experiment, one row each, with the settings in which they differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from anchorloss.report.markdown import document, escape, markdown_table
from anchorloss.report.records import made_from, order
from anchorloss.report.settings_table import swept
from anchorloss.report.status import duration
from anchorloss.runs.differences import describe_difference
from anchorloss.runs.folder import Record, read_ended
from anchorloss.runs.provenance import short_commit


def list_runs(results_dir: Path, experiment: str) -> str:
    """List the runs of an experiment that have ended, in Markdown.

    A run's row has its loss, the settings that are not the same in all runs, its accuracies, when it ran, the time taken
    without interruptions, its device and its commit.

    Raises:
        UserError: no run of the experiment has ended, or a record is damaged.
    """
    records = [record for _, record in read_ended(results_dir, experiment)]
    keys = swept(records)
    records.sort(key=lambda record: (order(record.loss), record.provenance.started, record.seed))
    data = records[0].data
    sets = ", ".join(sorted({record.evaluated_on for record in records}))
    header = ["loss", *keys, "seed", "Top-1", "Top-5", "began", "ended", "took", "device", "commit"]
    return document(
        f"# Every run of experiment {experiment}",
        f"{data.label}, {data.training_images:,} training images; accuracies in percent on the "
        f"{data.evaluation_images:,} {sets} images after the last epoch.",
        markdown_table(header, [_cells(record, keys) for record in records]),
        made_from(records),
    )


def _cells(record: Record, keys: Sequence[str]) -> list[str]:
    settings = {key: value for key, (_, value) in describe_difference({}, record.identity).items()}
    made = record.provenance
    scores = [f"{score:.2f}" if score is not None else "failed" for score in (record.top1, record.top5)]
    times = [time.replace("+00:00", "Z") for time in (made.started, made.finished)]
    return [
        escape(record.loss),
        *(escape(settings.get(key, "")) for key in keys),
        str(record.seed),
        *scores,
        *(escape(time) for time in times),
        duration(made.duration_seconds),
        escape(made.device),
        short_commit(made.commit, made.dirty),
    ]
