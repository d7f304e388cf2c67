"""What each section of the page says: numbers as text and figures, for the template of its name.

A table is (name, caption, note, columns, rows). A column is a heading with a class, `number`, `short` (unbroken) or
`text`; a cell is text, ("loss", name) for a loss with its colour or ("badge", verdict).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from anchorloss.analysis.calibration import FEWEST_IMAGES, pool, reliability
from anchorloss.analysis.comparison import (
    ALPHA,
    CONTRADICTED,
    MEASURES,
    NOT_RESOLVED,
    REFERENCE,
    SUPPORTED,
    TOP1,
    Comparison,
    Measure,
    compare_published,
    explanation,
)
from anchorloss.analysis.confusion import RANKS, class_accuracy, confused_pairs, target_ranks
from anchorloss.analysis.palette import Style
from anchorloss.analysis.published import PAPER_LOSSES
from anchorloss.analysis.stats import Difference, summarise
from anchorloss.report import figures_classes, figures_scores, figures_training
from anchorloss.report.data import ExperimentData
from anchorloss.report.text import DASH, count, interval, number, p_value, signed, spread
from anchorloss.runs.provenance import short_commit
from anchorloss.runs.store import Run

SCORES = {"top1": "Top-1", "top5": "Top-5"}
ASSUMED_RUNS = (3, 5, 10)
PAIRS = 12
# Of an experiment with thousands of runs, the table of runs lists this many.
MOST_RUNS = 2000
Content = dict[str, Any]
Styles = Mapping[str, Style]


def verdict(data: ExperimentData, looks: Styles) -> Content:
    """The answer in one sentence, the differences drawn, and below them what it rests on."""
    found = data.comparisons["top1"]
    claims = [data.published_difference(c.loss, "top1") for c in found]
    drawn = [
        figures_scores.differences(data, looks, data.comparisons[score], score, f"difference-{score}")
        for score in SCORES
    ]
    return {
        "sentence": answer(data),
        "figures": [(svg, "") for svg in drawn if svg],
        "verdicts": [
            (c, _typeset(explanation(c, data.reference_label, claimed=claim)))
            for c, claim in zip(found, claims, strict=True)
        ],
        "tests": [_tests(data, measure) for measure in MEASURES] if found else [],
        "checks": [_checks(data, measure) for measure in MEASURES] if found else [],
        "power": figures_scores.power_curve(
            data, looks, found, max((claim or 0.0 for claim in claims), default=0.0) or None, "power"
        ),
    }


def answer(data: ExperimentData) -> str:
    """Which losses do better or worse than BCE in Top-1, in one sentence."""
    found = [c for c in data.comparisons["top1"] if c.difference is not None]
    if not found:
        return f"Nothing to compare: this needs finished runs of {data.reference_label} and of at least one other loss."
    parts = []
    for of_paper in (True, False):
        family = [c for c in found if (c.loss in PAPER_LOSSES) is of_paper]
        for kind, words in (
            (SUPPORTED, f"better than {data.reference_label} in Top-1"),
            (CONTRADICTED, f"worse than {data.reference_label} in Top-1"),
            (NOT_RESOLVED, f"not resolved from {data.reference_label} in Top-1"),
        ):
            named = [_named(data, c) for c in family if c.verdict == kind]
            if named:
                parts.append(f"{'' if of_paper else 'beyond the paper, '}{words}: {_listed(named)}")
    said = "; ".join(parts)
    return f"{said[0].upper()}{said[1:]}."


def beside_the_paper(data: ExperimentData, looks: Styles) -> Content:
    """Table 1 with the published figures, and every seed drawn."""
    comparable = not data.table.stamps
    rows: list[list[Any]] = []
    for row in data.table.rows:
        cells: list[Any] = [("loss", row.loss), row.counted]
        for score in SCORES:
            ours = spread(getattr(row, score))
            cells.append(("best", ours) if getattr(row, f"best_{score}") else ours)
        against = row.top1_difference
        cells.append(_with_interval(against))
        for score in SCORES:
            paper = row.published
            published = (getattr(paper, f"{score}_mean"), getattr(paper, f"{score}_std")) if paper else None
            cells.append(f"{published[0]:.2f} ± {published[1]:.2f}" if published else DASH)
        if comparable:
            cells += [_above_paper(getattr(row, score).mean, row.published, score) for score in SCORES]
        rows.append(cells)
    heading = "paper" if comparable else "paper, not comparable"
    columns = ["loss:short", "n", "Top-1", "Top-5", f"Top-1 minus {data.reference_label} (95 %)"]
    columns += [f"{title}, {heading}" for title in SCORES.values()]
    columns += [f"{title} minus paper" for title in SCORES.values() if comparable]
    caption = "One mark per seed; below them the mean and its 95 % interval."
    if comparable:
        caption += " Grey: the published mean ± std."
    drawn = [figures_scores.every_seed(data, looks, score, f"seeds-{score}") for score in SCORES]
    return {
        "table": _table(
            "table-scores", "Table 1", "mean ± sample standard deviation over n seeds, percent", columns, rows
        ),
        "notes": data.table.notes,
        "figures": [(svg, f"{caption} {left_out}".strip()) for svg, left_out in filter(None, drawn)],
    }


def training(data: ExperimentData, looks: Styles) -> Content | None:
    """Learning curves."""
    curve = figures_training.learning_curve
    drawn = [
        curve(data, looks, "top1", "Top-1, evaluation", "curve-top1"),
        curve(data, looks, "top1", "The last fifth", "curve-end", last_share=0.2),
        figures_training.difference_curve(data, looks, "curve-difference"),
        curve(data, looks, "train_top1", "Top-1, training", "curve-train"),
    ]
    return _figures(drawn)


def modulation(data: ExperimentData, looks: Styles) -> Content | None:
    """How the distribution of the modulating factors moves."""
    return _figures(
        figures_training.factors(data, looks, side, f"factor-{side}") for side in ("target", "background")
    )


def by_class(data: ExperimentData, looks: Styles) -> Content | None:
    """Accuracy by class of each loss minus BCE."""
    accuracies = {
        loss: np.array([class_accuracy(one, data.classes) for one in by_seed.values()])
        for loss, by_seed in data.predictions.items()
        if by_seed
    }
    others = [loss for loss in accuracies if loss != data.reference]
    if data.reference not in accuracies or not others:
        return None
    means = {loss: found.mean(axis=0) for loss, found in accuracies.items()}
    pictures = []
    for loss in others:
        change = means[loss] - means[data.reference]
        chance = _chance(accuracies[loss], accuracies[data.reference])
        caption = figures_classes.extremes(data, change)
        if chance is not None:
            outside = int((np.abs(change) > 2 * chance).sum())
            caption += (
                f" Band: ± {2 * chance:.1f} points, two standard deviations of what seeds alone do. {outside} of "
                f"{len(change)} classes are outside; chance would put about {round(0.0455 * len(change))} there."
            )
        svg = figures_classes.class_differences(data, looks[loss], loss, change, chance, f"classes-{loss}")
        pictures.append((svg, caption))
    rows = [
        [
            data.class_name(index),
            number(_finite(means[data.reference][index]), "{:.1f}"),
            *(
                number(_finite(means[loss][index] - means[data.reference][index]), "{:+.1f}")
                for loss in others
            ),
        ]
        for index in range(data.classes)
    ]
    columns = ["class:short", data.reference_label, *(f"{data.label(loss)}, difference" for loss in others)]
    note = "percent, mean over seeds; points"
    return {"figures": pictures, "table": _table("class-table", "Accuracy by class", note, columns, rows)}


def confusion(data: ExperimentData, looks: Styles) -> Content | None:
    """The most confused pairs, and where the target ranks."""
    losses = [loss for loss in data.losses if data.predictions[loss]]
    if not losses:
        return None
    rows: list[list[Any]] = []
    for loss in losses:
        ranks = np.mean([target_ranks(one) for one in data.predictions[loss].values()], axis=0)
        rows.append([("loss", loss), *(number(float(share)) for share in ranks)])
    columns = ["loss:short", *(name for name, _, _ in RANKS)]
    ranking = _table("ranks", "Rank of the target among the scores", "percent of images", columns, rows)
    pairs = confused_pairs(data.predictions, data.classes, PAIRS)
    if not pairs:
        return {"figures": [], "tables": [ranking]}
    caption = (
        "Chosen by the mean over all losses: pairs chosen by one loss would flatter the others by chance."
    )
    counted = _table(
        "pairs-table",
        "Mistakes between two classes",
        "images a run, mean ± std",
        ["pair:short", *(data.label(loss) for loss in losses)],
        [
            [
                f"{data.class_name(pair.first)} · {data.class_name(pair.second)}",
                *(spread(pair.mistaken[loss], "{:.1f}") for loss in losses),
            ]
            for pair in pairs
        ],
    )
    return {
        "figures": [(figures_classes.confused(data, looks, pairs, "pairs"), caption)],
        "tables": [ranking, counted],
    }


def calibration(data: ExperimentData, looks: Styles) -> Content | None:
    """Reliability diagrams and the expected calibration error."""
    losses = [loss for loss in data.losses if data.predictions[loss]]
    if not losses:
        return None
    pictures, rows = [], []
    against = {c.loss: c.difference for c in data.comparisons["ece"]}
    for loss in losses:
        by_seed = data.predictions[loss]
        errors = summarise(data.values["ece"][loss])
        scores = summarise(
            {seed: 100 * float(one.confidence.mean(dtype=float)) for seed, one in by_seed.items()}
        )
        right = summarise(
            {seed: 100 * float((one.predicted == one.target).mean()) for seed, one in by_seed.items()}
        )
        svg = figures_classes.reliability_diagram(
            data,
            looks[loss],
            loss,
            reliability(pool(by_seed.values())),
            f"{spread(errors, '{:.1f}')} %",
            f"reliability-{loss}",
        )
        pictures.append((svg, ""))
        minus = _with_interval(against.get(loss))
        rows.append([("loss", loss), str(errors.n), spread(errors), minus, spread(scores), spread(right)])
    columns = [
        "loss:short",
        "n",
        "calibration error",
        f"minus {data.reference_label} (95 %)",
        "mean score",
        "right",
    ]
    return {
        "figures": pictures,
        "fewest": FEWEST_IMAGES,
        "table": _table("calibration-table", "Expected calibration error", "percent", columns, rows),
    }


def published(data: ExperimentData, looks: Styles) -> Content | None:
    """What the paper's own figures show under an assumed number of runs."""
    if REFERENCE not in data.published:
        return None
    tables = []
    for score, title in SCORES.items():
        given = {
            loss: (getattr(row, f"{score}_mean"), getattr(row, f"{score}_std"))
            for loss, row in data.published.items()
        }
        by_runs = [compare_published(given, n) for n in ASSUMED_RUNS]
        rows: list[list[Any]] = []
        for under in zip(*by_runs, strict=True):
            first = under[0]
            assert first.difference is not None
            name = ("loss", first.loss) if first.loss in looks else data.published[first.loss].label
            cells: list[Any] = [name, signed(first.difference.estimate)]
            for c in under:
                t = c.difference.t if c.difference else None
                cells += [number(t, "{:.1f}"), p_value(c.adjusted_p), ("badge", c.verdict)]
            rows.append([*cells, count(first.seeds_needed(first.difference.estimate))])
        columns = ["loss:short", "difference"]
        for n in ASSUMED_RUNS:
            columns += [f"t, n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{n}", "p, Holm", "verdict:short"]
        columns.append("runs of each needed")
        tables.append(_table(f"published-{score}", f"The paper's {title} against its BCE", "", columns, rows))
    return {"tables": tables}


def runs(data: ExperimentData, looks: Styles) -> Content:
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
        "table": _table("runs-table", "Every run", note, columns, [_run(run) for run in shown]),
        "versions": "; ".join(sorted(versions)),
    }


def protocol(data: ExperimentData, looks: Styles) -> Content | None:
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
            _table("protocol-table", "Shared by all runs", "", ["setting:short", "value:text"], rows),
            _table("losses-table", "Losses", "", ["loss:short", "settings:text"], own),
        ]
    }


def _named(data: ExperimentData, comparison: Comparison) -> str:
    """The loss, and its difference where that is resolved."""
    label, found = data.label(comparison.loss), comparison.difference
    if found is None or comparison.verdict == NOT_RESOLVED:
        return label
    return f"{label} ({signed(found.estimate)} points, 95 % interval {interval(found.interval)})"


def _with_interval(found: Difference | None) -> str:
    if found is None or found.interval is None:
        return signed(found.estimate) if found else DASH
    return f"{signed(found.estimate)} ({interval(found.interval)})"


def _tests(data: ExperimentData, measure: Measure) -> Content:
    rows: list[list[Any]] = []
    for c in data.comparisons[measure.key]:
        found = c.difference
        if found is None:
            rows.append([("loss", c.loss), *[DASH] * 8, ("badge", c.verdict)])
            continue
        design = f"{found.n} pairs"
        if found.design == "welch":
            design = f"{found.n} and {found.n_reference}, Welch"
        rows.append(
            [
                ("loss", c.loss),
                design,
                signed(found.estimate),
                interval(found.interval),
                number(found.t),
                number(found.degrees_of_freedom, "{:.1f}"),
                p_value(found.p_value),
                p_value(c.adjusted_p),
                number(found.correlation),
                ("badge", c.verdict),
            ]
        )
    columns = ["loss:short", "seeds:short", "difference", "95 % interval", "t", "df", "p", "p, Holm"]
    columns += ["correlation", "verdict:short"]
    kind = "primary measure" if measure is TOP1 else "secondary measure"
    note = f"{kind}; two-sided t tests" + ("; lower is better" if measure.lower_is_better else "")
    return _table(
        f"tests-{measure.key}", f"{_title(measure)} minus {data.reference_label}, points", note, columns, rows
    )


def _checks(data: ExperimentData, measure: Measure) -> Content:
    found = data.comparisons[measure.key]
    rows: list[list[Any]] = []
    for c in found:
        permutation, improvement = c.permutation, c.improvement
        claimed = data.published_difference(c.loss, measure.key)
        level = ALPHA / c.comparisons
        rows.append(
            [
                ("loss", c.loss),
                p_value(permutation.p_value if permutation else None),
                p_value(permutation.smallest_possible if permutation else None),
                number(improvement.probability if improvement else None),
                interval(improvement.interval if improvement else None, "{:.2f}"),
                number(c.detectable()),
                signed(claimed),
                count(c.seeds_needed(claimed) if claimed else None),
                _seeds_interval(c, claimed),
                count(c.seeds_needed(claimed, level) if claimed else None),
            ]
        )
    columns = ["loss:short", "permutation p", "smallest possible", "P(higher)", "95 % interval"]
    columns += ["minimum detectable", "published", "seeds needed", "95 % interval"]
    columns.append(f"at {ALPHA:g}/{max(c.comparisons for c in found)}")
    return _table(
        f"checks-{measure.key}", f"{_title(measure)}: checks and power", "80 % power", columns, rows
    )


def _seeds_interval(comparison: Comparison, claimed: float | None) -> str:
    found = comparison.seeds_interval(claimed) if claimed else None
    if found is None or found[0] is None:
        return DASH
    return f"{found[0]:,} to " + ("over a million" if found[1] is None else f"{found[1]:,}")


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


def _table(
    name: str, caption: str, note: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> Content:
    """Columns are written `heading` or `heading:kind`; the first heads its row."""
    split = [column.rsplit(":", 1) if ":" in column else [column, "number"] for column in columns]
    return {"name": name, "caption": caption, "note": note, "columns": split, "rows": rows}


def _figures(drawn: Iterable[str | None]) -> Content | None:
    shown = [(svg, "") for svg in drawn if svg]
    return {"figures": shown} if shown else None


def _title(measure: Measure) -> str:
    return measure.name[0].upper() + measure.name[1:]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _above_paper(ours: float | None, paper: Any, score: str) -> str:
    return DASH if ours is None or paper is None else signed(ours - getattr(paper, f"{score}_mean"))


def _typeset(text: str) -> str:
    """A sentence with real minus signs, and no line broken after `p =`."""
    text = re.sub(r"(?<= )-(?=\d)", "\N{MINUS SIGN}", text)
    return re.sub(r"\bp ([=<]) ", "p\N{NO-BREAK SPACE}\\1\N{NO-BREAK SPACE}", text)


def _chance(first: figures_classes.Floats, second: figures_classes.Floats) -> float | None:
    """Standard deviation of a class's difference of means if only seeds differed, pooled over classes.

    Shapes (seeds, classes); None where a loss has one seed.
    """
    if min(len(first), len(second)) < 2:
        return None
    variances = [np.nanmean(found.var(axis=0, ddof=1)) / len(found) for found in (first, second)]
    return float(np.sqrt(sum(variances)))


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _flat(settings: Mapping[str, Any], where: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in settings.items():
        place = f"{where}.{key}" if where else key
        if isinstance(value, dict):
            found.update(_flat(value, place))
        else:
            found[place] = value if isinstance(value, str) else json.dumps(value)
    return found
