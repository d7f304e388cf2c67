"""The sections of the scores, of training, and of the runs themselves, each for the template of its name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from anchorloss.report import figures_scores, figures_training
from anchorloss.report.comparison import REFERENCE, compare_published
from anchorloss.report.data import ExperimentData
from anchorloss.report.table import SCORES
from anchorloss.report.text import Content
from anchorloss.runs.differences import flatten

ASSUMED_RUNS = (3, 5, 10)
# Of an experiment with thousands of runs, the table of runs lists this many.
MOST_RUNS = 2000


def beside_the_paper(data: ExperimentData) -> Content:
    """Table 1 with the published figures, and every seed drawn."""
    caption = "One mark per seed; below them the mean and its 95 % interval."
    if not data.table.stamps:
        caption += " Grey: the published mean ± std."
    drawn = [figures_scores.every_seed(data, score, f"seeds-{score}") for score in SCORES]
    return {
        "notes": data.table.notes,
        "figures": [(svg, f"{caption} {left_out}".strip()) for svg, left_out in filter(None, drawn)],
    }


def training(data: ExperimentData) -> Content | None:
    """Learning curves."""
    curve = figures_training.learning_curve
    drawn = [
        curve(data, "top1", "Top-1, evaluation", "curve-top1"),
        curve(data, "top1", "The last fifth", "curve-end", last_share=0.2),
        figures_training.difference_curve(data, "curve-difference"),
        curve(data, "train_top1", "Top-1, training", "curve-train"),
    ]
    return _figures(drawn)


def modulation(data: ExperimentData) -> Content | None:
    """How the distribution of the modulating factors moves."""
    return _figures(
        figures_training.factors(data, side, f"factor-{side}") for side in ("target", "background")
    )


def published(data: ExperimentData) -> Content | None:
    """What the paper's own figures show under an assumed number of runs."""
    if REFERENCE not in data.published:
        return None
    compared = {}
    for score in SCORES:
        given = {loss: row.score(score) for loss, row in data.published.items()}
        by_runs = [compare_published(given, n) for n in ASSUMED_RUNS]
        compared[score] = list(zip(*by_runs, strict=True))
    return {"assumed": ASSUMED_RUNS, "compared": compared}


def runs(data: ExperimentData) -> Content:
    """Every run folder: its numbers, state, commit, device, time."""
    versions = {
        ", ".join(f"{name} {version}" for name, version in sorted(run.record.provenance.versions.items()))
        for run in data.runs
        if run.record is not None
    }
    return {"shown": data.runs[:MOST_RUNS], "versions": "; ".join(sorted(versions))}


def protocol(data: ExperimentData) -> Content | None:
    """The settings that decide a result: those all runs share, and each loss's own."""
    first = data.first
    if first is None:
        return None
    shared = {key: value for key, value in first.identity.items() if key not in ("loss", "seed")}
    facts = {
        "data": first.data.label,
        "data checksum": first.data.checksum,
        "training images": f"{first.data.training_images:,}",
        "evaluation images": f"{first.data.evaluation_images:,}, {first.evaluated_on}",
        **_flat(shared),
    }
    losses = {}
    for loss, by_seed in data.records.items():
        for record in list(by_seed.values())[:1]:
            settings = _flat({key: value for key, value in record.identity["loss"].items() if key != "name"})
            losses[loss] = ", ".join(f"{key}={value}" for key, value in settings.items())
    return {"shared": facts, "losses": losses}


def _figures(drawn: Iterable[str | None]) -> Content | None:
    shown = [(svg, "") for svg in drawn if svg]
    return {"figures": shown} if shown else None


def _flat(settings: Mapping[str, Any]) -> dict[str, str]:
    return {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in flatten(settings).items()
    }
