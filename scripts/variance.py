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


def report(runs: pd.DataFrame) -> str:
    """Return the whole file for the runs of one experiment."""
    experiment = runs["experiment"].iloc[0]
    heading = f"{experiment}{table.title(runs, paper.planned(experiment))}"
    runs = runs[runs["loss"].isin(paper.LOSSES)]
    right = right_answers(runs)
    spread, tests = seed_variance(right), mcnemar(right, paper.REFERENCE)
    pooled = (spread[["observed", "test set"]] ** 2).mul(spread["n"] - 1, axis=0).sum()
    share = number(100 * pooled["test set"] / pooled["observed"], ".0f")
    of_seeds = [
        [paper.label(str(loss)), f"{one['n']:.0f}", number(one["observed"]), number(one["test set"])]
        for loss, one in spread.iterrows()
    ]
    of_images = []
    for loss in spread.index.drop(paper.REFERENCE):
        component, seeds, both = image_component(right, loss, paper.REFERENCE)
        of_images.append(
            [paper.label(loss), number(component, "+.4f"), number(seeds, ".3f"), number(both, ".3f")]
        )
    pairs = [
        [paper.label(loss), str(seed), str(own), str(base), p_value(p).removeprefix("= ")]
        for loss, seed, own, base, p in tests.itertuples(index=False)
    ]
    return document(
        f"# Where the variance comes from, experiment {heading}",
        "From the predictions of each run after its last epoch.",
        "## Pairing by seed",
        "Two runs differ in whether an image is predicted right, on average over pairs of runs:",
        "\n".join(
            f"- {kind}: {number(value)} % of the images" for kind, value in disagreement(right).items()
        ),
        "## Seeds and the finite test set",
        "Standard deviation of Top-1 over seeds, and what independent answers to the images of this test set would give, "
        f"in points. Over all losses, the test set is {share} % of the variance between seeds.",
        markdown_table(["loss", "n", "over seeds", "test set alone"], of_seeds),
        "## Other images",
        "The variance component loss x image of a difference in Top-1 (crossed random effects of seeds and images), and "
        "the standard error of the difference in points, over seeds alone and over seeds and images:",
        markdown_table(["loss - BCE", "component", "over seeds", "over both"], of_images),
        "## Single pairs of runs",
        "McNemar's exact test of each run against BCE's run of its seed, uncorrected: "
        f"{(tests['p'] < 0.05).sum()} of {len(tests)} have p < 0.05.",
        markdown_table(["loss", "seed", "right alone", "BCE right alone", "p"], pairs),
        made_from(runs),
    )


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


def main() -> None:
    arguments = parser(__doc__, experiment="table1_resnet20").parse_args()
    publish(arguments, "variance", report(frame.runs(arguments.experiment, arguments.results_dir)))


if __name__ == "__main__":
    run(main)
