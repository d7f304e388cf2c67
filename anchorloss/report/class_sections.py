"""The sections made from the predictions: accuracy by class, confused classes, calibration."""

from __future__ import annotations

import numpy as np

from anchorloss.report import figures_classes
from anchorloss.report.calibration import FEWEST_IMAGES, pool, reliability
from anchorloss.report.confusion import RANKS, Floats, class_accuracy, confused_pairs, target_ranks
from anchorloss.report.data import ExperimentData
from anchorloss.report.stats import summarise
from anchorloss.report.text import Content, spread

PAIRS = 12


def by_class(data: ExperimentData) -> Content | None:
    """Accuracy by class of each loss minus that of the reference."""
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
    return {"figures": pictures, "mean": means[data.reference], "changes": changes}


def confusion(data: ExperimentData) -> Content | None:
    """The most confused pairs, and where the target ranks."""
    losses = [loss for loss in data.losses if data.predictions[loss]]
    if not losses:
        return None
    ranks = {
        loss: np.mean([target_ranks(one) for one in data.predictions[loss].values()], axis=0)
        for loss in losses
    }
    pairs = confused_pairs(data.predictions, data.classes, PAIRS)
    caption = (
        "Chosen by the mean over all losses: pairs chosen by one loss would flatter the others by chance."
    )
    return {
        "figures": [(figures_classes.confused(data, pairs, "pairs"), caption)] if pairs else [],
        "ranges": [name for name, _, _ in RANKS],
        "ranks": ranks,
        "pairs": pairs,
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
        rows.append((loss, errors, against.get(loss), scores, right))
    return {"figures": pictures, "fewest": FEWEST_IMAGES, "errors": rows}


def _chance(first: Floats, second: Floats) -> float | None:
    """Standard deviation of a class's difference of means if only seeds differed, pooled over classes.

    Shapes (seeds, classes); None where a loss has one seed.
    """
    if min(len(first), len(second)) < 2:
        return None
    variances = [np.nanmean(found.var(axis=0, ddof=1)) / len(found) for found in (first, second)]
    return float(np.sqrt(sum(variances)))
