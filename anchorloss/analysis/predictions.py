"""What predictions.npz says of a run: calibration, accuracy by class, confused pairs, sources of variance."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from anchorloss.runs.folder import Predictions, read_predictions

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


def right_answers(runs: pd.DataFrame) -> pd.DataFrame:
    """Return whether each image is predicted right: a row for each finished run, by (loss, seed), a column an image."""
    done = runs[runs["state"] == "finished"]
    answers = [read_predictions(folder) for folder in done["folder"]]
    index = pd.MultiIndex.from_frame(done[["loss", "seed"]])
    return pd.DataFrame([one.predicted == one.target for one in answers], index=index)


def disagreement(right: pd.DataFrame) -> dict[str, float]:
    """Return the mean percentage of images on which two runs differ in correctness, by what the runs share.

    Args:
        right: As `right_answers` returns it.
    """
    shares: dict[str, list[float]] = {
        "the same loss, another seed": [],
        "another loss, another seed": [],
        "another loss, the same seed": [],
    }
    values = right.to_numpy()
    for (place, (loss, seed)), (other, (its, at)) in combinations(enumerate(right.index), 2):
        kind = (
            f"{'the same' if loss == its else 'another'} loss, {'the same' if seed == at else 'another'} seed"
        )
        shares[kind].append(100 * float((values[place] != values[other]).mean()))
    return {kind: float(np.mean(values)) if values else np.nan for kind, values in shares.items()}


def seed_variance(right: pd.DataFrame) -> pd.DataFrame:
    """Return, for each loss, the standard deviation of accuracy over seeds, and that of the finite test set alone.

    The latter is what independent answers to the images would give: the root of the sum over images of p (1 - p),
    estimated without bias, over their number. Both in points; their squares' ratio is the share of the test set.
    """
    rows = {}
    for loss, own in right.groupby(level="loss", sort=False):
        n, images = own.shape
        share = own.mean()
        chance = float((share * (1 - share)).sum() * n / (n - 1)) if n > 1 else np.nan
        rows[loss] = {
            "n": n,
            "observed": 100 * own.mean(axis=1).std(),
            "test set": 100 * chance**0.5 / images,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def image_component(right: pd.DataFrame, loss: str, reference: str) -> tuple[float, float, float]:
    """Return the loss x image variance component of a difference, and its standard error without and with it.

    Over the seeds that both losses have, the differences in correctness d (seeds, images) are taken apart into seeds,
    images and a rest (two-way crossed random effects, Cornfield and Tukey 1956). The component of the images is how much
    the true difference varies between images, per image; the standard errors, in points, are of the mean difference over
    seeds alone, and over seeds and images.
    """
    own, base = (right.xs(name, level="loss") for name in (loss, reference))
    seeds = own.index.intersection(base.index)
    deltas = own.loc[seeds].to_numpy(float) - base.loc[seeds].to_numpy(float)
    n, images = deltas.shape
    by_seed, by_image, mean = deltas.mean(1), deltas.mean(0), deltas.mean()
    rest = ((deltas - by_seed[:, None] - by_image + mean) ** 2).sum() / ((n - 1) * (images - 1))
    of_images = n * ((by_image - mean) ** 2).sum() / (images - 1)
    of_seeds = images * ((by_seed - mean) ** 2).sum() / (n - 1)
    component = (of_images - rest) / n
    both = (of_seeds + of_images - rest) / (n * images)
    return float(component), 100 * float(of_seeds / (n * images)) ** 0.5, 100 * float(max(both, 0)) ** 0.5


def mcnemar(right: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Return McNemar's exact test of each run against the reference's run of its seed: a row for each such pair.

    `only_own` and `only_reference` count the images that one of the two predicts right; `p` is two-sided.
    """
    rows = []
    for loss, seed in right.index:
        if loss != reference and (reference, seed) in right.index:
            own, base = right.loc[(loss, seed)], right.loc[(reference, seed)]
            wins, losses = int((own & ~base).sum()), int((base & ~own).sum())
            p = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
            rows.append(
                {"loss": loss, "seed": seed, "only_own": wins, "only_reference": losses, "p": float(p)}
            )
    return pd.DataFrame(rows, columns=["loss", "seed", "only_own", "only_reference", "p"])
