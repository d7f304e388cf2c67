"""A table of an experiment that sweeps over other settings than loss and seed: a row for each combination."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from anchorloss.errors import UserError
from anchorloss.report.markdown import document, escape, markdown_table, spread
from anchorloss.report.records import by_seed, made_from, order, require_reference
from anchorloss.report.stats import Summary, summarise
from anchorloss.report.table import SCORES, stamps
from anchorloss.runs.differences import describe_difference, differences
from anchorloss.runs.files import write_results
from anchorloss.runs.folder import Record, read_ended


@dataclass(frozen=True)
class SettingsRow:
    """The runs of one loss at one combination of the swept settings.

    `values` has a setting's value as JSON, `absent` where the loss does not have it. `scores` has Top-1 and Top-5 by
    seed, in percent.
    """

    loss: str
    values: tuple[str, ...]
    n: int
    failed: int
    scores: Mapping[str, Mapping[int, float]]

    @property
    def summaries(self) -> list[Summary]:
        """Top-1 and Top-5 over the seeds."""
        return [summarise(values) for values in self.scores.values()]


@dataclass(frozen=True)
class SettingsTable:
    """The rows, by loss and then by settings; `keys` names the swept settings, dotted."""

    experiment: str
    stamps: tuple[str, ...]
    keys: tuple[str, ...]
    rows: tuple[SettingsRow, ...]
    reference: str | None
    protocol: str
    provenance: str

    def difference(self, row: SettingsRow, score: str) -> float | None:
        """Return the mean difference from the reference at the same settings, over the seeds that both have.

        The settings of the losses themselves (`loss.gamma`) do not count. None without a shared seed, or if the reference
        has several rows at these settings.
        """
        if row.loss == self.reference:
            return None
        bases = [
            other.scores[score]
            for other in self.rows
            if other.loss == self.reference and self._shared(other) == self._shared(row)
        ]
        own = row.scores[score]
        seeds = own.keys() & bases[0].keys() if len(bases) == 1 else ()
        return fmean(own[seed] - bases[0][seed] for seed in seeds) if seeds else None

    def _shared(self, row: SettingsRow) -> list[str]:
        settings = zip(self.keys, row.values, strict=True)
        return [value for key, value in settings if not key.startswith("loss.")]


def make_settings_table(results_dir: Path, experiment: str, reference: str | None = None) -> SettingsTable:
    """Read the records of an experiment and write its `settings.md` and `settings.csv` under `results_dir`.

    With a loss as `reference`, every other's difference from it is given, at the same settings.

    Raises:
        UserError: no run has ended, the runs saw different data, or the reference has no run.
        RunError: a file cannot be written.
    """
    table = build([record for _, record in read_ended(results_dir, experiment)], experiment, reference)
    texts = {"settings.md": to_markdown(table), "settings.csv": to_csv(table)}
    write_results(results_dir / experiment, {name: text.encode() for name, text in texts.items()})
    return table


def swept(records: Sequence[Record]) -> tuple[str, ...]:
    """The settings beside loss and seed in which records differ, dotted."""
    found = differences([(record.loss, record.identity) for record in records])
    return tuple(sorted({key for *_, difference in found for key in difference}))


def build(records: Sequence[Record], experiment: str, reference: str | None = None) -> SettingsTable:
    """Group records by loss and by the settings in which they differ.

    Raises:
        UserError: the runs saw different data under the same settings, or the reference has no run.
    """
    if reference is not None:
        require_reference(reference, (record.loss for record in records))
    keys = swept(records)
    groups: dict[tuple[str, tuple[str, ...]], list[Record]] = {}
    for record in records:
        known = {key: value for key, (_, value) in describe_difference({}, record.identity).items()}
        values = tuple(known.get(key, "absent") for key in keys)
        groups.setdefault((record.loss, values), []).append(record)
    rows = []
    for (loss, values), group in groups.items():
        if len({record.data.checksum for record in group}) > 1:
            raise UserError(
                f"{group[0].run} and {group[1].run} cannot stand in one table: they saw different images; move the runs "
                "of one of them away"
            )
        done = [record for record in group if record.status == "finished"]
        scores = {score: by_seed(done, score) for score in SCORES}
        rows.append(SettingsRow(loss, values, len(done), len(group) - len(done), scores))
    rows.sort(key=lambda row: (order(row.loss), [_sortable(value) for value in row.values]))
    return SettingsTable(
        experiment=experiment,
        stamps=stamps(records),
        keys=keys,
        rows=tuple(rows),
        reference=reference,
        protocol=(
            f"{records[0].data.label}. Accuracy in percent after the last epoch, mean ± sample standard deviation "
            "(n - 1) over n seeds."
        ),
        provenance=made_from(records),
    )


def to_markdown(table: SettingsTable) -> str:
    """The table as Markdown, with the differences from the reference if there is one."""
    compared = [f"{name} - {table.reference}" for name in SCORES.values()] if table.reference else []
    header = ["loss", *table.keys, "n", *SCORES.values(), *compared]
    cells = []
    for row in table.rows:
        count = f"{row.n} ({row.failed} failed)" if row.failed else str(row.n)
        scores = [spread(summary) for summary in row.summaries]
        gaps = [table.difference(row, score) for score in SCORES] if compared else []
        shown = ["—" if gap is None else f"{gap:+.2f}" for gap in gaps]
        cells.append([escape(row.loss), *(escape(value) for value in row.values), count, *scores, *shown])
    title = " - ".join([f"Experiment {table.experiment} by setting", *table.stamps])
    return document(f"# {title}", table.protocol, markdown_table(header, cells), table.provenance)


def to_csv(table: SettingsTable) -> str:
    """The table with all digits; empty where there is no value."""
    import pandas as pd  # half a second that Markdown does not need

    rows = []
    for row in table.rows:
        settings = {
            key: None if value == "absent" else _plain(value)
            for key, value in zip(table.keys, row.values, strict=True)
        }
        cells = {"loss": row.loss, **settings, "n": row.n, "failed": row.failed}
        for score, summary in zip(SCORES, row.summaries, strict=True):
            cells |= {f"{score}_mean": summary.mean, f"{score}_std": summary.std}
        if table.reference:
            cells |= {f"{score}_minus_{table.reference}": table.difference(row, score) for score in SCORES}
        rows.append(cells)
    return pd.DataFrame(rows, dtype=object).to_csv(index=False, lineterminator="\n")


def _plain(value: str) -> Any:
    """A setting as CSV has it: text without JSON's quotes, unless a spreadsheet would take it for a formula."""
    content = json.loads(value)
    return content if isinstance(content, str) and content[:1] not in tuple("=+-@\t") else value


def _sortable(value: str) -> tuple[int, float, str]:
    """Numbers by size, then texts."""
    try:
        return (0, float(value), "")
    except ValueError:
        return (1, 0.0, value)
