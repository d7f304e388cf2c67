"""Arms against a reference, seed by seed: intervals, t tests, Holm's correction, verdicts, power, and the amendment.

The claim "this loss is better than the reference" is judged by one rule. With p the two-sided t test's p-value after
Holm's correction within its family,
    supported      p <= 0.05 and the loss does better,
    contradicted   p <= 0.05 and the loss does worse,
    not resolved   otherwise, also where there are too few seeds for a test.

Families of `verdicts`: the paper's losses in the primary measure; their other measures together; and losses that the
paper does not have, which form two families of their own in the same way, so that training one more does not make the
paper's claims harder to support.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import optimize, special, stats

from anchorloss.analysis.frame import MEASURES, PRIMARY
from anchorloss.analysis.paper import EXPERIMENTS, LOSSES, MARGIN, REFERENCE, TABLE1, published_difference

ALPHA, POWER, LEVEL = 0.05, 0.8, 0.95
SUPPORTED, NOT_RESOLVED, CONTRADICTED = "supported", "not resolved", "contradicted"
MOST_SEEDS, MOST_ARRANGEMENTS = 1_000_000, 100_000
COLUMNS = (
    *("n", "n_reference", "mean", "mean_reference", "paired", "difference", "low", "high"),
    *("t", "df", "p", "correlation", "spreads"),
)
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(400)
QUANTILES, WEIGHTS = (1 + _NODES) / 2, _NODE_WEIGHTS / 2
Floats = npt.NDArray[np.float64]


def samples(
    runs: pd.DataFrame, measure: str, arm: str, reference: str, column: str = "loss"
) -> tuple[Floats, Floats, bool]:
    """Return what is compared: the values of an arm and of the reference, and whether they are pairs.

    They are of the seeds that both have, or all if they share none: a partial sweep would otherwise compare the means of
    different seeds. Runs of one seed share initial weights and data order, so they are pairs, if every pair was trained
    on one kind of processor: another kind rounds differently. `column` tells the arms apart; finished runs count.
    """
    done = runs[runs["state"] == "finished"].sort_values("seed", kind="stable")
    own, base = (
        done[done[column] == name].drop_duplicates("seed", keep="last").set_index("seed")
        for name in (arm, reference)
    )
    shared = own.index.intersection(base.index)
    if len(shared):
        own, base = own.loc[shared], base.loc[shared]
    paired = len(shared) > 0 and bool((own["processor"] == base["processor"]).all())
    return own[measure].to_numpy(float), base[measure].to_numpy(float), paired


def compare(
    runs: pd.DataFrame, measure: str, reference: str, arm: str = "loss", names: Iterable[str] | None = None
) -> pd.DataFrame:
    """Compare every arm with `reference`: by Student's t test on pairs, else by Welch's.

    Args:
        runs: A row a run, of one protocol but for `arm`.
        measure: A column, in percent.
        reference: The arm to compare with.
        arm: The column that tells the arms apart.
        names: The arms, in order; by default those that have a run. One without a finished run has a row of NaN.

    Returns:
        `COLUMNS` with a row for each arm but the reference, none without it: `difference` of the means in points, its
        95 % interval `low`, `high`; `correlation` of three or more pairs; `spreads`, the standard deviation of the
        differences of pairs, or of each side. Without a spread, interval and test are NaN.
    """
    names = list(dict.fromkeys(runs[arm] if names is None else names))
    compared = [name for name in names if name != reference] if reference in names else []
    rows = {name: _test(*samples(runs, measure, name, reference, arm)) for name in compared}
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS))


def _test(own: Floats, base: Floats, paired: bool) -> dict[str, Any]:
    n, n_reference = len(own), len(base)
    row: dict[str, Any] = {"n": n, "n_reference": n_reference, "paired": paired, "spreads": ()}
    if min(n, n_reference) > 0:
        row |= {"mean": own.mean(), "mean_reference": base.mean(), "difference": own.mean() - base.mean()}
    if min(n, n_reference) < 2:
        return row
    if paired and n > 2 and np.ptp(own) > 0 and np.ptp(base) > 0:
        row["correlation"] = np.corrcoef(own, base)[0, 1]
    spreads = tuple(float(side.std(ddof=1)) for side in ((own - base,) if paired else (own, base)))
    # Differences that are equal but for rounding have no spread to test against.
    if math.hypot(*spreads) <= 1e-9 * max(1.0, abs(row["difference"])):
        return row
    test = stats.ttest_rel(own, base) if paired else stats.ttest_ind(own, base, equal_var=False)
    low, high = test.confidence_interval(LEVEL)
    return row | {
        "spreads": spreads,
        "t": test.statistic,
        "df": test.df,
        "p": test.pvalue,
        "low": low,
        "high": high,
    }


def holm(p: pd.Series) -> pd.Series:
    """Adjust the p-values of one family (Holm 1979, step-down); a missing one still counts as a comparison."""
    ranked = p.astype(float).sort_values()
    return (ranked * np.arange(len(p), 0, -1)).cummax().clip(upper=1).reindex(p.index)


def corrected(found: pd.DataFrame, lower_is_better: npt.ArrayLike = False) -> pd.DataFrame:
    """Add `holm`, the number of `comparisons` and the `verdict` to rows of `compare` that are one family."""
    adjusted = holm(found["p"])
    better = (found["difference"] > 0) != np.asarray(lower_is_better)
    verdict = np.where(adjusted <= ALPHA, np.where(better, SUPPORTED, CONTRADICTED), NOT_RESOLVED)
    return found.assign(holm=adjusted, comparisons=len(found), verdict=verdict)


def verdicts(runs: pd.DataFrame, reference: str, losses: Iterable[str] | None = None) -> pd.DataFrame:
    """Compare every loss with `reference` in every measure, corrected by the families of the module's docstring.

    Args:
        runs: A row a run, as `frame.measured` returns it.
        reference: The loss to compare with.
        losses: The losses, in order, also planned ones without a run; by default those that have one.

    Returns:
        The columns of `corrected` with a row for each (measure, loss), and `exploratory`: whether it is a comparison in
        an experiment of the paper that was not planned for it.
    """
    losses = list(dict.fromkeys(runs["loss"] if losses is None else losses))
    made = {key: compare(runs, key, reference, names=losses) for key in MEASURES}
    found = pd.concat(made, names=["measure", "loss"])
    measure, loss = (found.index.get_level_values(name) for name in ("measure", "loss"))
    of_paper, primary = loss.isin(LOSSES), measure == PRIMARY
    lower = measure.isin([key for key, one in MEASURES.items() if one.lower_is_better])
    families = [(of_paper == a) & (primary == b) for a in (True, False) for b in (True, False)]
    found = pd.concat([corrected(found[family], lower[family]) for family in families]).loc[found.index]
    question = EXPERIMENTS.get(runs["experiment"].iloc[0])
    planned = of_paper & measure.isin(question.planned if question else ()) & (reference == REFERENCE)
    return found.assign(exploratory=~planned & (question is not None))


def power(difference: float, spreads: Sequence[float], n: int, alpha: float = ALPHA) -> float:
    """Return the power of the two-sided t test with `n` >= 2 pairs, or `n` independent runs of each arm (Welch).

    With true difference d, standard error s and f degrees of freedom, t follows a noncentral t with noncentrality d / s;
    power is the probability that |t| exceeds its critical value (Cohen 1988). `spreads` is the standard deviation of the
    differences of pairs, or those of the two arms; one is above 0.
    """
    variances = np.square(spreads)
    # Satterthwaite's approximation; n - 1 for pairs.
    df = (n - 1) * float(variances.sum() ** 2 / (variances**2).sum())
    shift = difference * math.sqrt(n) / math.hypot(*spreads)
    critical = float(stats.t.isf(alpha / 2, df))
    # P(|T| > critical) is the mean over S of Phi(d - cS) + Phi(-d - cS), where T = (Z + d) / S, S^2 = chi2_f / f: the
    # integral over the quantiles of S by Gauss-Legendre. scipy's own noncentral t returns NaN for few degrees of freedom
    # and a large noncentrality, which is where two or three seeds live.
    s = np.sqrt(2 * special.gammaincinv(df / 2, QUANTILES) / df)
    return float(WEIGHTS @ (special.ndtr(shift - critical * s) + special.ndtr(-shift - critical * s)))


def seeds_needed(difference: float, spreads: Sequence[float], alpha: float = ALPHA) -> float:
    """Return the smallest number of seeds, 2 or more, that detects `difference` with 80 % power; arguments as `power`.

    NaN for no difference, without spread, or where it would be more than `MOST_SEEDS`.
    """
    if difference == 0 or math.isnan(difference) or not any(spreads):
        return math.nan
    counts = range(2, MOST_SEEDS + 1)
    place = bisect.bisect_left(counts, POWER, key=lambda n: power(difference, spreads, n, alpha))
    return counts[place] if place < len(counts) else math.nan


def detectable(spreads: Sequence[float], n: int) -> float:
    """Return the minimum detectable difference of `n` seeds (80 % power), in points; NaN without a spread."""
    if n < 2 or not any(spreads):
        return math.nan
    high = math.hypot(*spreads)
    while power(high, spreads, n) < POWER:
        high *= 2
    return float(optimize.brentq(lambda d: power(d, spreads, n) - POWER, 0.0, high, xtol=1e-9))


def spread_bounds(df: float) -> tuple[float, float]:
    """Return the factors from an observed standard deviation to the ends of its 95 % interval, from chi-squared.

    With five pairs, 4 degrees of freedom, the true spread is between 0.60 and 2.87 times the observed one.
    """
    low, high = (df / stats.chi2.ppf(q, df) for q in ((1 + LEVEL) / 2, (1 - LEVEL) / 2))
    return math.sqrt(low), math.sqrt(high)


def permutation(own: Floats, base: Floats, paired: bool) -> float:
    """Return the two-sided p-value of a permutation test of the difference of means; NaN for fewer than two values.

    Of pairs the signs of the differences are flipped, otherwise the labels permuted: every arrangement up to
    `MOST_ARRANGEMENTS`, else 9,999 drawn from a fixed seed. Few seeds bound it from below: 0.0625 for five pairs.
    """
    if min(len(own), len(base)) < 2:
        return math.nan
    # Sums of integers: in floating point, ties between arrangements of accuracies would be lost.
    sample = (own - base,) if paired else (own, base)
    arrangements = 2 ** len(own) if paired else math.comb(len(own) + len(base), len(own))
    found = stats.permutation_test(
        [np.rint(1e6 * side) for side in sample],
        np.sum if paired else lambda x, y, axis: np.sum(x, axis=axis),
        permutation_type="samples" if paired else "independent",
        vectorized=True,
        n_resamples=math.inf if arrangements <= MOST_ARRANGEMENTS else 9999,
        batch=1000,
        random_state=np.random.default_rng(0),
    )
    return float(found.pvalue)


def improvement(own: Floats, base: Floats) -> tuple[float, float, float]:
    """Return P(X > Y) + P(X = Y) / 2 over all pairs of runs, and its 95 % interval (Agarwal et al. 2021; one task).

    The interval is a percentile bootstrap of each side: with a handful of seeds it is too narrow. NaN where a side has
    no value, or one for the interval.
    """
    wins = 0.5 * (1 + np.sign(own[:, None] - base[None, :]))
    if min(wins.shape) < 2:
        return float(wins.mean()) if wins.size else math.nan, math.nan, math.nan
    draw = np.random.default_rng(0)
    rows, columns = (draw.integers(n, size=(2000, n)) for n in wins.shape)
    shares = wins[rows[:, :, None], columns[:, None, :]].mean(axis=(1, 2))
    low, high = np.quantile(shares, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(wins.mean()), float(low), float(high)


def _margin(terms: Iterable[tuple[float, float]], level: float) -> tuple[float, float, float]:
    """Half an interval, standard error and degrees of freedom (Satterthwaite) from each (squared error, df)."""
    squared, df = np.array(list(terms), dtype=float).T
    error, freedom = math.sqrt(squared.sum()), float(squared.sum() ** 2 / (squared**2 / df).sum())
    return float(stats.t.ppf((1 + level) / 2, freedom)) * error, error, freedom


def amendment(runs: pd.DataFrame, papers_runs: Sequence[int] = (3, 5, 10)) -> pd.DataFrame:
    """Compute what the amendment in docs/protocol.md adds to the registered analysis of Top-1, for each of its losses.

    Returns:
        A row for each loss: `difference`, `low`, `high` as registered (points); the `published` difference, and whether
        the interval lies wholly below it (`excluded`); `low90`, `high90`, and `p` of two one-sided t tests within
        ±`MARGIN` (`equivalent` if p < 0.05); ours minus the paper's, `above_paper`, with its interval `low_n`, `high_n`
        for n = each of `papers_runs`, the paper's unknown number of runs; and the sensitivity analysis: `pooled`, from a
        linear model `top1 ~ loss` over all finished runs, with Dunnett's `pooled_low`, `pooled_high` and `pooled_p`.
    """
    runs = runs[(runs["state"] == "finished") & runs["loss"].isin(LOSSES)]
    values = {loss: runs.loc[runs["loss"] == loss, PRIMARY].to_numpy(float) for loss in LOSSES}
    control, rows = values.pop(REFERENCE), {}
    dunnett = stats.dunnett(*values.values(), control=control, random_state=np.random.default_rng(0))
    bounds = dunnett.confidence_interval(LEVEL)
    pooled = zip(bounds.low, bounds.high, dunnett.pvalue, strict=True)
    for (loss, own), one in zip(
        values.items(), compare(runs, PRIMARY, REFERENCE, names=LOSSES).to_dict("records"), strict=True
    ):
        sizes, deviation = (one["n"], one["n_reference"]), TABLE1[f"{PRIMARY}_std"].astype(float)
        ours = [(spread**2 / n, n - 1) for spread, n in zip(one["spreads"], sizes, strict=False)]
        d, claimed, (half, error, df) = (
            one["difference"],
            published_difference(loss, PRIMARY),
            _margin(ours, 0.9),
        )
        p = max(stats.t.sf((d + MARGIN) / error, df), stats.t.cdf((d - MARGIN) / error, df))
        row = {key: one[key] for key in ("n", "difference", "low", "high")}
        row |= {"published": claimed, "excluded": bool(one["high"] < claimed), "above_paper": d - claimed}
        row |= {"low90": d - half, "high90": d + half, "p": p, "equivalent": bool(p < ALPHA)}
        for n in papers_runs:
            theirs = [(deviation[name] ** 2 / n, n - 1) for name in (loss, REFERENCE)]
            half = _margin(ours + theirs, LEVEL)[0]
            row |= {f"low_{n}": d - claimed - half, f"high_{n}": d - claimed + half}
        row["pooled"] = own.mean() - control.mean()
        rows[loss] = row | dict(zip(("pooled_low", "pooled_high", "pooled_p"), next(pooled), strict=True))
    return pd.DataFrame.from_dict(rows, orient="index")
