"""Accuracy by class, pairs of classes that are confused, and ranks of the target, from predictions.npz."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anchorloss.report.stats import Summary, summarise
from anchorloss.runs.folder import Predictions

Floats = npt.NDArray[np.float64]

RANKS = (("1st", 0, 0), ("2nd", 1, 1), ("3rd to 5th", 2, 4), ("6th to 10th", 5, 9), ("below 10th", 10, 255))


@dataclass(frozen=True)
class Pair:
    """Two classes that are confused with each other, by index.

    `mistaken`: loss -> images in a run in which either is taken for the other, over the seeds.
    """

    first: int
    second: int
    mistaken: Mapping[str, Summary]


def class_accuracy(predictions: Predictions, classes: int) -> Floats:
    """Return the percentage of each class's images that are predicted right, shape (classes,); NaN without images."""
    counts = confusions(predictions, classes)
    with np.errstate(invalid="ignore"):
        return 100 * counts.diagonal() / counts.sum(axis=1)


def confusions(predictions: Predictions, classes: int) -> npt.NDArray[np.int64]:
    """Return the confusion matrix: number of images by (target, predicted), shape (classes, classes)."""
    cell = predictions.target.astype(np.int64) * classes + predictions.predicted
    return np.bincount(cell, minlength=classes * classes).reshape(classes, classes)


def confused_pairs(
    answers: Mapping[str, Mapping[int, Predictions]], classes: int, most: int
) -> tuple[Pair, ...]:
    """Find the pairs of classes that are taken for each other most often, in either direction.

    They are chosen by the mean over losses of the mean over seeds: pairs chosen because one loss does badly on them would
    flatter every other loss by chance alone. `answers` are loss -> seed -> predictions; no more than `most` pairs are
    returned.
    """
    mistaken = {
        loss: {seed: _either_way(predictions, classes) for seed, predictions in by_seed.items()}
        for loss, by_seed in answers.items()
    }
    means = [np.mean(list(by_seed.values()), axis=0) for by_seed in mistaken.values() if by_seed]
    if not means:
        return ()
    overall = np.mean(means, axis=0)
    order = np.argsort(-overall, axis=None, kind="stable")[:most]
    cells = (divmod(int(cell), classes) for cell in order)
    return tuple(
        Pair(
            *cell,
            {
                loss: summarise({seed: float(counts[cell]) for seed, counts in by_seed.items()})
                for loss, by_seed in mistaken.items()
            },
        )
        for cell in cells
        if overall[cell] > 0
    )


def _either_way(predictions: Predictions, classes: int) -> npt.NDArray[np.int64]:
    """The confusion matrix with both directions added, above the diagonal."""
    counts = confusions(predictions, classes)
    return np.triu(counts + counts.T, k=1)


def target_ranks(predictions: Predictions) -> Floats:
    """Return the percentage of images whose target has a rank in each range of `RANKS`, shape (len(RANKS),)."""
    rank = predictions.target_rank
    return np.array([100 * float(((rank >= low) & (rank <= high)).mean()) for _, low, high in RANKS])
