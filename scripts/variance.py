"""Measure where the variance between runs comes from: results/<experiment>/variance.md, from the committed predictions.

Does pairing by seed help? How much of the variance between seeds is the finite test set? Does a difference carry over to
other images? What would McNemar's test say of single pairs of runs? docs/statistics.md quotes the answers.
"""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _common import parser, publish, run

from anchorloss.analysis import frame, paper, table
from anchorloss.analysis.text import document, made_from, markdown_table, number, p_value
from anchorloss.runs.folder import read_predictions

Right = dict[tuple[str, int], np.ndarray]


def report(runs: pd.DataFrame) -> str:
    """Return the whole file for the runs of one experiment."""
    experiment = runs["experiment"].iloc[0]
    heading = f"{experiment}{table.title(runs, paper.planned(experiment))}"
    runs = runs[runs["loss"].isin(paper.LOSSES)]
    right = right_answers(runs[runs["state"] == "finished"])
    losses = list(dict.fromkeys(loss for loss, _ in right))
    spread = {loss: seed_variance(np.array(list(of(right, loss).values()))) for loss in losses}
    observed, of_test_set = (sum((n - 1) * each[k] ** 2 for n, *each in spread.values()) for k in (0, 1))
    components = {loss: image_component(right, loss) for loss in losses if loss != paper.REFERENCE}
    tests = mcnemar(right)
    return document(
        f"# Where the variance comes from, experiment {heading}",
        "From the predictions of each run after its last epoch.",
        "## Pairing by seed",
        "Two runs differ in whether an image is predicted right, on average over pairs of runs:",
        "\n".join(
            f"- {kind}: {number(share)} % of the images" for kind, share in disagreement(right).items()
        ),
        "## Seeds and the finite test set",
        "Standard deviation of Top-1 over seeds, and what independent answers to the images of this test set would give, "
        f"in points. Over all losses, the test set is {number(100 * of_test_set / observed, '.0f')} % of the variance "
        "between seeds.",
        markdown_table(
            ["loss", "n", "over seeds", "test set alone"],
            [[paper.label(loss), str(n), *map(number, each)] for loss, (n, *each) in spread.items()],
        ),
        "## Other images",
        "The variance component loss x image of a difference in Top-1 (crossed random effects of seeds and images), and "
        "the standard error of the difference in points, over seeds alone and over seeds and images:",
        markdown_table(
            ["loss - BCE", "component", "over seeds", "over both"],
            [
                [paper.label(loss), number(component, "+.4f"), number(of_seeds, ".3f"), number(both, ".3f")]
                for loss, (component, of_seeds, both) in components.items()
            ],
        ),
        "## Single pairs of runs",
        "McNemar's exact test of each run against BCE's run of its seed, uncorrected: "
        f"{sum(p < 0.05 for *_, p in tests)} of {len(tests)} have p < 0.05.",
        markdown_table(
            ["loss", "seed", "right alone", "BCE right alone", "p"],
            [
                [paper.label(loss), *map(str, counts), p_value(p).removeprefix("= ")]
                for loss, *counts, p in tests
            ],
        ),
        made_from(runs),
    )


def right_answers(finished: pd.DataFrame) -> Right:
    """Return whether each image is predicted right, bool (images,), by loss and seed."""
    answers = map(read_predictions, finished["folder"])
    keys = zip(finished["loss"], finished["seed"], strict=True)
    return {key: own.predicted == own.target for key, own in zip(keys, answers, strict=True)}


def of(right: Right, loss: str) -> dict[int, np.ndarray]:
    """Return one loss's answers by seed."""
    return {seed: answers for (its, seed), answers in right.items() if its == loss}


def disagreement(right: Right) -> dict[str, float]:
    """Return the mean percentage of images on which two runs differ in correctness, by what the runs share."""
    kinds = ("the same loss, another seed", "another loss, another seed", "another loss, the same seed")
    shares: dict[str, list[float]] = {kind: [] for kind in kinds}
    for first, second in combinations(right, 2):
        same = ["the same" if a == b else "another" for a, b in zip(first, second, strict=True)]
        shares[f"{same[0]} loss, {same[1]} seed"].append(100 * float((right[first] != right[second]).mean()))
    return {kind: float(np.mean(values)) if values else np.nan for kind, values in shares.items()}


def seed_variance(right: np.ndarray) -> tuple[int, float, float]:
    """Return n, the standard deviation of accuracy over seeds, and that of the finite test set alone, both in points.

    The latter is what independent answers to the images would give: the root of the sum over images of p (1 - p),
    estimated without bias, over their number. `right` is (seeds, images).
    """
    n, images = right.shape
    share = right.mean(0)
    if n == 1:
        return n, np.nan, np.nan
    chance = (share * (1 - share)).sum() * n / (n - 1)
    return n, 100 * right.mean(1).std(ddof=1), 100 * chance**0.5 / images


def image_component(right: Right, loss: str) -> tuple[float, float, float]:
    """Return the loss x image variance component of a difference, and its standard error without and with it.

    Over the seeds that the loss shares with BCE, the differences in correctness (seeds, images) are taken apart into
    seeds, images and a rest (two-way crossed random effects, Cornfield and Tukey 1956). The component is how much the
    true difference varies between images, per image; the standard errors are in points.
    """
    own, base = of(right, loss), of(right, paper.REFERENCE)
    deltas = np.array([own[seed] - base[seed].astype(float) for seed in own if seed in base])
    n, images = deltas.shape
    by_seed, by_image, mean = deltas.mean(1), deltas.mean(0), deltas.mean()
    rest = ((deltas - by_seed[:, None] - by_image + mean) ** 2).sum() / ((n - 1) * (images - 1))
    of_images = n * ((by_image - mean) ** 2).sum() / (images - 1)
    of_seeds = images * ((by_seed - mean) ** 2).sum() / (n - 1)
    variances = (of_seeds, max(of_seeds + of_images - rest, 0))
    return (of_images - rest) / n, *(100 * (each / (n * images)) ** 0.5 for each in variances)


def mcnemar(right: Right) -> list[tuple[str, int, int, int, float]]:
    """Return McNemar's exact test of each run against BCE's run of its seed.

    Loss, seed, the numbers of images that one of the two alone predicts right, and the two-sided p.
    """
    tests = []
    for (loss, seed), own in right.items():
        base = right.get((paper.REFERENCE, seed))
        if loss != paper.REFERENCE and base is not None:
            wins, losses = int((own & ~base).sum()), int((base & ~own).sum())
            p = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
            tests.append((loss, seed, wins, losses, float(p)))
    return tests


def main() -> None:
    arguments = parser(__doc__, experiment="table1_resnet20").parse_args()
    publish(arguments, "variance", report(frame.runs(arguments.experiment, arguments.results_dir)))


if __name__ == "__main__":
    run(main)
