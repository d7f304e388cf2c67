"""The sections of the scores, of training, and of the runs themselves, each for the template of its name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from anchorloss.analysis.comparison import REFERENCE, compare_published
from anchorloss.analysis.table import SCORES
from anchorloss.report import figures_scores, figures_training
from anchorloss.report.data import ExperimentData
from anchorloss.report.text import DASH, Content, count, number, p_value, signed, spread, table, with_interval
from anchorloss.runs.differences import flatten
from anchorloss.runs.provenance import short_commit
from anchorloss.runs.store import Run

ASSUMED_RUNS = (3, 5, 10)
# Of an experiment with thousands of runs, the table of runs lists this many.
MOST_RUNS = 2000


def beside_the_paper(data: ExperimentData) -> Content:
    """Table 1 with the published figures, and every seed drawn."""
    comparable = not data.table.stamps
    rows: list[list[Any]] = []
    for row in data.table.rows:
        scores = row.scores.values()
        cells: list[Any] = [("loss", row.loss), row.counted]
        cells += [("best", spread(score)) if score.best else spread(score) for score in scores]
        cells.append(with_interval(row.top1.difference))
        cells += [DASH if s.published is None else "{:.2f} ± {:.2f}".format(*s.published) for s in scores]
        if comparable:
            cells += [signed(data.table.above_paper(score)) for score in scores]
        rows.append(cells)
    heading = "paper" if comparable else "paper, not comparable"
    columns = ["loss:short", "n", "Top-1", "Top-5", f"Top-1 minus {data.reference_label} (95 %)"]
    columns += [f"{title}, {heading}" for title in SCORES.values()]
    columns += [f"{title} minus paper" for title in SCORES.values() if comparable]
    caption = "One mark per seed; below them the mean and its 95 % interval."
    if comparable:
        caption += " Grey: the published mean ± std."
    drawn = [figures_scores.every_seed(data, score, f"seeds-{score}") for score in SCORES]
    return {
        "table": table(
            "table-scores", "Table 1", "mean ± sample standard deviation over n seeds, percent", columns, rows
        ),
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
    tables = []
    for score, title in SCORES.items():
        given = {loss: row.score(score) for loss, row in data.published.items()}
        by_runs = [compare_published(given, n) for n in ASSUMED_RUNS]
        rows: list[list[Any]] = []
        for under in zip(*by_runs, strict=True):
            first = under[0]
            assert first.difference is not None
            name = ("loss", first.loss) if first.loss in data.losses else data.published[first.loss].label
            cells: list[Any] = [name, signed(first.difference.estimate)]
            for c in under:
                t = c.difference.t if c.difference else None
                cells += [number(t, "{:.1f}"), p_value(c.adjusted_p), ("badge", c.verdict)]
            rows.append([*cells, count(first.seeds_needed(first.difference.estimate))])
        columns = ["loss:short", "difference"]
        for n in ASSUMED_RUNS:
            columns += [f"t, n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{n}", "p, Holm", "verdict:short"]
        columns.append("runs of each needed")
        tables.append(table(f"published-{score}", f"The paper's {title} against its BCE", "", columns, rows))
    return {"tables": tables}


def runs(data: ExperimentData) -> Content:
    """Every run folder: its numbers, state, commit, device, time."""
    columns = ["loss:short", "seed", "state:short", "Top-1", "Top-5", "best epoch*", "commit:short"]
    columns += ["device:short", "precision:short", "minutes", "resumed", "finished:short", "run:short"]
    versions = {
        ", ".join(f"{name} {version}" for name, version in sorted(run.record.provenance.versions.items()))
        for run in data.runs
        if run.record is not None
    }
    shown = data.runs[:MOST_RUNS]
    note = "accuracies in percent after the last epoch"
    if len(shown) < len(data.runs):
        note += f"; the first {len(shown):,} of {len(data.runs):,} runs"
    return {
        "count": len(data.runs),
        "provenance": data.table.provenance,
        "table": table("runs-table", "Every run", note, columns, [_run(run) for run in shown]),
        "versions": "; ".join(sorted(versions)),
    }


def _run(run: Run) -> list[Any]:
    record = run.record
    if record is None:
        epoch = f", epoch {run.progress.epoch} of {run.progress.epochs}" if run.progress else ""
        return [("loss", run.loss), str(run.seed), run.state + epoch, *[DASH] * 9, ("code", run.name)]
    made = record.provenance
    return [
        ("loss", run.loss),
        str(run.seed),
        run.state,
        number(record.top1),
        number(record.top5),
        DASH if record.best is None else f"{record.best.top1:.2f} in {record.best.epoch}",
        short_commit(made.commit, made.dirty),
        made.device,
        made.precision,
        number(made.duration_seconds / 60, "{:.1f}"),
        str(made.resumed),
        made.finished[:16].replace("T", " "),
        ("code", run.name),
    ]


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
    own: list[list[Any]] = []
    for loss, by_seed in data.records.items():
        for record in list(by_seed.values())[:1]:
            settings = _flat({key: value for key, value in record.identity["loss"].items() if key != "name"})
            text = ", ".join(f"{key}={value}" for key, value in settings.items())
            own.append([("loss", loss), ("code", text)])
    rows = [[key, ("code", value)] for key, value in facts.items()]
    return {
        "tables": [
            table("protocol-table", "Shared by all runs", "", ["setting:short", "value:text"], rows),
            table("losses-table", "Losses", "", ["loss:short", "settings:text"], own),
        ]
    }


def _figures(drawn: Iterable[str | None]) -> Content | None:
    shown = [(svg, "") for svg in drawn if svg]
    return {"figures": shown} if shown else None


def _flat(settings: Mapping[str, Any]) -> dict[str, str]:
    return {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in flatten(settings).items()
    }
