"""Reliability diagram and expected calibration error (Guo et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anchorloss.runs.folder import Predictions

BINS = 15
# A diagram shows no bin with fewer: a share of 20 images has a standard error of up to 11 points.
FEWEST_IMAGES = 20


@dataclass(frozen=True)
class Reliability:
    """Predictions by bin of the predicted class's score.

    Attributes:
        images: Number of images in each bin, shape (BINS,).
        score: Their mean score, 0 to 1, shape (BINS,); NaN in an empty bin.
        accuracy: The share that is predicted right, 0 to 1, shape (BINS,); NaN in an empty bin.
    """

    images: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]

    @property
    def error(self) -> float:
        """Expected calibration error, 0 to 1: |accuracy - score| averaged over bins, weighted by their images."""
        return float(np.nansum(self.images * np.abs(self.accuracy - self.score)) / self.images.sum())


def pool(runs: Iterable[Predictions]) -> Predictions:
    """Concatenate the predictions of several runs."""
    found = list(runs)
    keys = ("target", "predicted", "target_rank", "confidence")
    return Predictions(*(np.concatenate([getattr(one, key) for one in found]) for key in keys))


def reliability(predictions: Predictions) -> Reliability:
    """Bin predictions by score, in bins of equal width, open below and closed above, as in the definition."""
    score = predictions.confidence.astype(np.float64)
    right = (predictions.predicted == predictions.target).astype(np.float64)
    bin_of = np.clip(np.ceil(score * BINS).astype(np.int64) - 1, 0, BINS - 1)
    images = np.bincount(bin_of, minlength=BINS)
    with np.errstate(invalid="ignore"):
        return Reliability(
            images,
            np.bincount(bin_of, weights=score, minlength=BINS) / images,
            np.bincount(bin_of, weights=right, minlength=BINS) / images,
        )
