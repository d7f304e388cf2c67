"""What the networks answer: classes, confusions, ranks, calibration."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from anchorloss.analysis.calibration import reliability
from anchorloss.analysis.confusion import RANKS, class_accuracy, confused_pairs, target_ranks
from anchorloss.analysis.stats import summarise
from anchorloss.report import figures_answers
from anchorloss.report.colours import Style
from anchorloss.report.data import ExperimentData
from anchorloss.report.markup import Column, escape, figures, loss_name, number, spread, table
from anchorloss.runs.store import Predictions

PAIRS = 12
Styles = Mapping[str, Style]
Floats = npt.NDArray[np.float64]


def by_class(data: ExperimentData, styles: Styles) -> str | None:
    """Accuracy by class of each loss minus the reference."""
    accuracies = {
        loss: np.array([class_accuracy(predictions, data.classes) for predictions in by_seed.values()])
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
        caption = ""
        if chance is not None:
            outside = int((np.abs(change) > 2 * chance).sum())
            expected = round(0.0455 * len(change))
            caption = (
                f"Band: ± {2 * chance:.1f} points, two standard deviations of what seeds alone do. {outside} of "
                f"{len(change)} classes lie outside; chance would put about {expected} there."
            )
        svg = figures_answers.class_differences(
            data, styles[loss], loss, data.reference, change, chance, f"classes-{loss}"
        )
        pictures.append((svg, caption))
    columns = [Column("class", "short"), Column(data.reference_label)]
    columns += [Column(f"{data.label(loss)}, difference") for loss in others]
    rows = [
        [
            escape(data.class_name(index)),
            number(_finite(means[data.reference][index]), "{:.1f}"),
            *(
                number(_finite(means[loss][index] - means[data.reference][index]), "{:+.1f}")
                for loss in others
            ),
        ]
        for index in range(data.classes)
    ]
    everything = table("class-table", "Accuracy by class", columns, rows, "percent, mean over seeds; points")
    return figures(pictures) + f"<details><summary>All {data.classes} classes</summary>{everything}</details>"


def confusion(data: ExperimentData, styles: Styles) -> str | None:
    """The most confused pairs, and where the target ranks."""
    losses = [loss for loss in data.losses if data.predictions[loss]]
    if not losses:
        return None
    rows = []
    for loss in losses:
        ranks = np.mean(
            [target_ranks(predictions) for predictions in data.predictions[loss].values()], axis=0
        )
        rows.append([loss_name(data.label(loss), styles[loss]), *(number(float(share)) for share in ranks)])
    columns = [Column("loss", "short"), *(Column(name) for name, _, _ in RANKS)]
    ranking = table("ranks", "Where the target ranks among the scores", columns, rows, "percent of images")
    pairs = confused_pairs(data.predictions, data.classes, PAIRS)
    if not pairs:
        return ranking
    caption = "The pairs are chosen by the mean over all losses: chosen by one loss alone, they would flatter the others."
    picture = figures([(figures_answers.confused(data, styles, pairs, "pairs"), caption)])
    columns = [Column("pair", "short"), *(Column(data.label(loss)) for loss in losses)]
    rows = [
        [
            escape(f"{data.class_name(pair.first)} · {data.class_name(pair.second)}"),
            *(spread(pair.mistaken[loss], "{:.1f}") for loss in losses),
        ]
        for pair in pairs
    ]
    counted = table("pairs-table", "Mistakes between two classes", columns, rows, "images a run, mean ± std")
    return f'<div class="beside">{picture}{ranking}</div>{counted}'


def calibration(data: ExperimentData, styles: Styles) -> str | None:
    """Reliability diagrams and the expected calibration error."""
    losses = [loss for loss in data.losses if data.predictions[loss]]
    if not losses:
        return None
    pictures: list[tuple[str | None, str]] = []
    rows = []
    for loss in losses:
        by_seed = data.predictions[loss]
        errors = summarise(
            {seed: 100 * reliability(predictions).error for seed, predictions in by_seed.items()}
        )
        scores = summarise(
            {seed: 100 * float(a.confidence.astype(np.float64).mean()) for seed, a in by_seed.items()}
        )
        right = summarise(
            {seed: 100 * float((a.predicted == a.target).mean()) for seed, a in by_seed.items()}
        )
        pooled = reliability(_pool(by_seed))
        svg = figures_answers.reliability_diagram(
            data, styles[loss], loss, pooled, f"{spread(errors, '{:.1f}')} %", f"reliability-{loss}"
        )
        pictures.append((svg, ""))
        rows.append(
            [
                loss_name(data.label(loss), styles[loss]),
                str(errors.n),
                spread(errors),
                spread(scores),
                spread(right),
            ]
        )
    columns = [
        Column("loss", "short"),
        Column("n"),
        Column("calibration error"),
        Column("mean score"),
        Column("right"),
    ]
    return figures(pictures) + table(
        "calibration-table", "Expected calibration error", columns, rows, "percent"
    )


def _chance(first: Floats, second: Floats) -> float | None:
    """Standard deviation of a class's difference of means if only seeds differed, pooled over classes.

    Shapes (seeds, classes); None where a loss has one seed.
    """
    if min(len(first), len(second)) < 2:
        return None
    variances = [np.nanmean(found.var(axis=0, ddof=1)) / len(found) for found in (first, second)]
    return float(np.sqrt(sum(variances)))


def _pool(by_seed: Mapping[int, Predictions]) -> Predictions:
    found = list(by_seed.values())
    return Predictions(
        *(
            np.concatenate([getattr(predictions, key) for predictions in found])
            for key in ("target", "predicted", "target_rank", "confidence")
        )
    )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
