"""The sections made from the predictions: accuracy by class, confused classes, calibration."""

from __future__ import annotations

from typing import Any

import numpy as np

from anchorloss.analysis.calibration import FEWEST_IMAGES, pool, reliability
from anchorloss.analysis.confusion import RANKS, Floats, class_accuracy, confused_pairs, target_ranks
from anchorloss.analysis.stats import summarise
from anchorloss.report import figures_classes
from anchorloss.report.data import ExperimentData
from anchorloss.report.text import Content, number, spread, table, with_interval

PAIRS = 12


def by_class(data: ExperimentData) -> Content | None:
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
    changes = {loss: means[loss] - means[data.reference] for loss in others}
    pictures = []
    for loss, change in changes.items():
        chance = _chance(accuracies[loss], accuracies[data.reference])
        caption = figures_classes.extremes(data, change)
        if chance is not None:
            outside = int((np.abs(change) > 2 * chance).sum())
            caption += (
                f" Band: ± {2 * chance:.1f} points, two standard deviations of what seeds alone do. {outside} of "
                f"{len(change)} classes are outside; chance would put about {round(0.0455 * len(change))} there."
            )
        svg = figures_classes.class_differences(data, loss, change, chance, f"classes-{loss}")
        pictures.append((svg, caption))
    rows = [
        [
            data.class_name(index),
            number(means[data.reference][index], "{:.1f}"),
            *(number(change[index], "{:+.1f}") for change in changes.values()),
        ]
        for index in range(data.classes)
    ]
    columns = ["class:short", data.reference_label, *(f"{data.label(loss)}, difference" for loss in others)]
    note = "percent, mean over seeds; points"
    return {"figures": pictures, "table": table("class-table", "Accuracy by class", note, columns, rows)}


def confusion(data: ExperimentData) -> Content | None:
    """The most confused pairs, and where the target ranks."""
    losses = [loss for loss in data.losses if data.predictions[loss]]
    if not losses:
        return None
    rows: list[list[Any]] = []
    for loss in losses:
        ranks = np.mean([target_ranks(one) for one in data.predictions[loss].values()], axis=0)
        rows.append([("loss", loss), *map(number, ranks)])
    columns = ["loss:short", *(name for name, _, _ in RANKS)]
    ranking = table("ranks", "Rank of the target among the scores", "percent of images", columns, rows)
    pairs = confused_pairs(data.predictions, data.classes, PAIRS)
    if not pairs:
        return {"figures": [], "tables": [ranking]}
    caption = (
        "Chosen by the mean over all losses: pairs chosen by one loss would flatter the others by chance."
    )
    counted = table(
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
        "figures": [(figures_classes.confused(data, pairs, "pairs"), caption)],
        "tables": [ranking, counted],
    }


def calibration(data: ExperimentData) -> Content | None:
    """Reliability diagrams and the expected calibration error."""
    losses = [loss for loss in data.losses if data.predictions[loss]]
    if not losses:
        return None
    pictures, rows = [], []
    against = {c.loss: c.difference for c in data.comparisons["ece"]}
    for loss in losses:
        by_seed = data.predictions[loss]
        errors = summarise(data.values["ece"][loss])
        scores = summarise({seed: 100 * float(p.confidence.mean(dtype=float)) for seed, p in by_seed.items()})
        right = summarise(
            {seed: 100 * float((p.predicted == p.target).mean()) for seed, p in by_seed.items()}
        )
        svg = figures_classes.reliability_diagram(
            data,
            loss,
            reliability(pool(by_seed.values())),
            f"{spread(errors, '{:.1f}')} %",
            f"reliability-{loss}",
        )
        pictures.append((svg, ""))
        minus = with_interval(against.get(loss))
        rows.append([("loss", loss), str(errors.n), spread(errors), minus, spread(scores), spread(right)])
    columns = ["loss:short", "n", "calibration error", f"minus {data.reference_label} (95 %)"]
    columns += ["mean score", "right"]
    return {
        "figures": pictures,
        "fewest": FEWEST_IMAGES,
        "table": table("calibration-table", "Expected calibration error", "percent", columns, rows),
    }


def _chance(first: Floats, second: Floats) -> float | None:
    """Standard deviation of a class's difference of means if only seeds differed, pooled over classes.

    Shapes (seeds, classes); None where a loss has one seed.
    """
    if min(len(first), len(second)) < 2:
        return None
    variances = [np.nanmean(found.var(axis=0, ddof=1)) / len(found) for found in (first, second)]
    return float(np.sqrt(sum(variances)))
