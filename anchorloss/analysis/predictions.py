"""What predictions.npz says of a run: calibration, accuracy by class, confused pairs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from anchorloss.runs.folder import Predictions

BINS = 15
Floats = npt.NDArray[np.float64]


def reliability(predictions: list[Predictions]) -> pd.DataFrame:
    """Bin the predictions of some runs by the predicted class's score (Guo et al. 2017).

    Returns:
        A row for each bin that has images, of 15 bins of equal width, open below and closed above: `images`, their mean
        `score` and the share `right`, both 0 to 1.
    """
    score = np.concatenate([one.confidence.astype(np.float64) for one in predictions])
    right = np.concatenate([one.predicted == one.target for one in predictions])
    place = np.clip(np.ceil(score * BINS).astype(int) - 1, 0, BINS - 1)
    bins = pd.DataFrame({"score": score, "right": right}).groupby(place)
    return pd.DataFrame({"images": bins.size(), **{key: bins[key].mean() for key in ("score", "right")}})


def calibration_error(predictions: Predictions) -> float:
    """Return the expected calibration error in percent: |right - score| averaged over bins, weighted by their images."""
    bins = reliability([predictions])
    return 100 * float(np.average((bins["right"] - bins["score"]).abs(), weights=bins["images"]))


def score_gap(predictions: Predictions) -> float:
    """Return the mean score of the predicted class minus the accuracy, in points: above 0 for overconfidence."""
    right = predictions.predicted == predictions.target
    return 100 * float(predictions.confidence.astype(np.float64).mean() - right.mean())


def confusions(predictions: Predictions, classes: int) -> npt.NDArray[np.int64]:
    """Return the confusion matrix: number of images by (target, predicted), shape (classes, classes)."""
    cell = predictions.target.astype(np.int64) * classes + predictions.predicted
    return np.bincount(cell, minlength=classes * classes).reshape(classes, classes)


def class_accuracy(predictions: Predictions, classes: int) -> Floats:
    """Return the percentage of each class's images that are predicted right, shape (classes,); NaN without images."""
    counts = confusions(predictions, classes)
    with np.errstate(invalid="ignore"):
        return 100 * counts.diagonal() / counts.sum(axis=1)


def confused_pairs(found: pd.Series, losses: pd.Series, names: list[str], most: int = 12) -> pd.DataFrame:
    """Count the mistakes between two classes, in either direction.

    The pairs are those most frequent in the mean over losses: chosen by one loss, they would flatter the others.

    Args:
        found: The predictions of some runs.
        losses: The loss of each, with the same index.
        names: What the classes are called.
        most: The number of pairs.

    Returns:
        Images in a run, a row for each pair ("bee · beetle"), a column for each loss.
    """
    first, second = np.triu_indices(len(names), 1)
    counts = [confusions(run, len(names)) for run in found]
    either = pd.DataFrame([(count + count.T)[first, second] for count in counts], index=losses[found.index])
    means = either.groupby(level=0, sort=False).mean().T
    means.index = pd.Index([f"{names[a]} · {names[b]}" for a, b in zip(first, second, strict=True)])
    ranked = means.mean(axis=1).sort_values(ascending=False, kind="stable")
    return means.loc[ranked.index[:most]][ranked.iloc[:most].to_numpy() > 0]
