"""How the runs went and where every number comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from anchorloss.report import figures_training
from anchorloss.report.colours import Style
from anchorloss.report.data import ExperimentData
from anchorloss.report.markup import DASH, Column, escape, figures, loss_name, number, table
from anchorloss.runs.store import Run

Styles = Mapping[str, Style]


def training(data: ExperimentData, styles: Styles) -> str | None:
    """Learning curves."""
    curves = [
        figures_training.learning_curve(data, styles, "top1", "Top-1, evaluation", "curve-top1"),
        figures_training.learning_curve(data, styles, "top1", "The last fifth", "curve-end", last_share=0.2),
        figures_training.difference_curve(data, styles, "curve-difference"),
        figures_training.learning_curve(data, styles, "train_top1", "Top-1, training", "curve-train"),
    ]
    if not any(curves):
        return None
    return figures([(svg, "") for svg in curves])


def modulation(data: ExperimentData, styles: Styles) -> str | None:
    """How the modulating factors' distribution moves."""
    shown = [
        (figures_training.factors(data, styles, side, f"factor-{side}"), "")
        for side in ("target", "background")
    ]
    return figures(shown) or None


def provenance(data: ExperimentData, styles: Styles) -> str:
    """Every run folder: its numbers, state, commit, device, time."""
    rows = [_run(run, data, styles) for run in data.runs]
    columns = [
        Column("loss", "short"),
        Column("seed"),
        Column("state", "short"),
        Column("Top-1"),
        Column("Top-5"),
        Column("best epoch*"),
        Column("commit", "short"),
        Column("device", "short"),
        Column("precision", "short"),
        Column("minutes"),
        Column("resumed"),
        Column("finished", "short"),
        Column("run", "short"),
    ]
    parts = [table("runs-table", "Every run", columns, rows, "accuracies in percent after the last epoch")]
    parts.append(
        '<p class="note">* An extra: Top-1 at the best epoch was picked on the evaluation set and is in no mean.</p>'
    )
    versions = sorted(
        {
            ", ".join(f"{name} {version}" for name, version in sorted(run.record.provenance.versions.items()))
            for run in data.runs
            if run.record is not None
        }
    )
    parts.append(f"<p>Software: {escape('; '.join(versions))}.</p>")
    return "".join(parts)


def protocol(data: ExperimentData, styles: Styles) -> str | None:
    """The settings that decide a result: those all runs share, and each loss's own."""
    first = data.first
    if first is None:
        return None
    shared = {key: value for key, value in first.identity.items() if key not in ("loss", "seed")}
    seen = first.data
    facts: dict[str, Any] = {
        "data": seen.label,
        "data checksum": seen.checksum,
        "training images": f"{seen.training_images:,}",
        "evaluation images": f"{seen.evaluation_images:,}, {first.evaluated_on}",
        **_flat(shared),
    }
    rows = [[escape(key), f"<code>{escape(value)}</code>"] for key, value in facts.items()]
    parts = [
        table(
            "protocol-table",
            "Shared by all runs",
            [Column("setting", "short"), Column("value", "text")],
            rows,
        )
    ]
    rows = []
    for loss, by_seed in data.records.items():
        for record in list(by_seed.values())[:1]:
            own = _flat({key: value for key, value in record.identity["loss"].items() if key != "name"})
            text = ", ".join(f"{key}={value}" for key, value in own.items())
            rows.append([loss_name(data.label(loss), styles[loss]), f"<code>{escape(text)}</code>"])
    parts.append(table("losses-table", "Losses", [Column("loss", "short"), Column("settings", "text")], rows))
    return "".join(parts)


def _run(run: Run, data: ExperimentData, styles: Styles) -> list[str]:
    name, seed, folder = (
        loss_name(data.label(run.loss), styles[run.loss]),
        str(run.seed),
        f"<code>{escape(run.name)}</code>",
    )
    record = run.record
    if record is None:
        epoch = f", epoch {run.progress.epoch} of {run.progress.epochs}" if run.progress else ""
        return [name, seed, escape(run.state + epoch), *[DASH] * 9, folder]
    made = record.provenance
    commit = escape((made.commit or "unknown")[:10]) + (" + changes" if made.dirty else "")
    best = DASH if record.best is None else f"{record.best.top1:.2f} in {record.best.epoch}"
    return [
        name,
        seed,
        escape(run.state),
        number(record.top1),
        number(record.top5),
        best,
        commit,
        escape(made.device),
        escape(made.precision),
        number(made.duration_seconds / 60, "{:.1f}"),
        str(made.resumed),
        escape(made.finished[:16].replace("T", " ")),
        folder,
    ]


def _flat(settings: dict[str, Any], where: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in settings.items():
        place = f"{where}.{key}" if where else key
        if isinstance(value, dict):
            found.update(_flat(value, place))
        else:
            found[place] = value if isinstance(value, str) else json.dumps(value)
    return found
