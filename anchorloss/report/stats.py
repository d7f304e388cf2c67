"""Means, intervals and tests for a few seeds of two losses.

Every function takes plain mappings seed -> value (Top-1 in percent or any other score) and returns a small
frozen result. A quantity that a sample cannot give is None, never 0: one seed has no standard deviation, and
without a spread there is no interval and no test. Imports neither torch nor anything that reads run folders.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Values = Mapping[int, float]

LEVEL = 0.95
BOOTSTRAP_RESAMPLES = 20_000
PERMUTATION_RESAMPLES = 100_000
# Resamples are drawn in blocks of about this many numbers, so that memory does not grow with the number of seeds.
BLOCK = 4_000_000
PARTS = 64


@dataclass(frozen=True)
class Summary:
    """`n` values, their mean (None for n = 0) and sample standard deviation (divisor n - 1; None for n < 2)."""

    n: int
    mean: float | None
    std: float | None


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval at `LEVEL`."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """Mean of one loss minus mean of the reference.

    Attributes:
        design: "paired" (by seed; `n` equals `n_reference`) or "welch".
        spread: Standard deviation of the paired differences; None under "welch".
        correlation: Pearson's correlation of the pairs; None under "welch", for fewer than three pairs and where
            one side does not vary.
        degrees_of_freedom, interval: None where a group is too small to have a spread.
        t, p_value: Two-sided test of a true difference of zero; also None where the spread is exactly zero.
    """

    design: str
    n: int
    n_reference: int
    estimate: float
    spread: float | None = None
    correlation: float | None = None
    degrees_of_freedom: float | None = None
    interval: Interval | None = None
    t: float | None = None
    p_value: float | None = None


@dataclass(frozen=True)
class Permutation:
    """A two-sided permutation p-value, and the smallest that this design could have given."""

    p_value: float
    smallest_possible: float
    exact: bool


@dataclass(frozen=True)
class Improvement:
    """Probability that a run of the loss scores above a run of the reference, ties counted half.

    The interval is None where a group has one run.
    """

    probability: float
    interval: Interval | None


def summarise(values: Values) -> Summary:
    """Return n, mean and sample standard deviation.

    Raises:
        ValueError: A value is not finite.
    """
    sample = _array(values)
    n = len(sample)
    return Summary(n, float(sample.mean()) if n else None, float(sample.std(ddof=1)) if n > 1 else None)


def mean_interval(values: Values) -> Interval | None:
    """Return Student's t interval of the mean; None for fewer than two values."""
    summary = summarise(values)
    if summary.mean is None or summary.std is None:
        return None
    # scipy's own interval has no ends where all values are equal.
    margin = float(stats.t.ppf((1 + LEVEL) / 2, summary.n - 1)) * summary.std / math.sqrt(summary.n)
    return Interval(summary.mean - margin, summary.mean + margin)


def shared_runs(values: Values, reference: Values) -> tuple[Values, Values]:
    """Return the runs to compare: those of the seeds that both have, or all of them if they share no seed.

    A partial sweep would otherwise compare the means of different seeds.
    """
    shared = sorted(values.keys() & reference.keys())
    own, base = ({seed: side[seed] for seed in shared} for side in (values, reference))
    return (own, base) if shared else (values, reference)


def difference(values: Values, reference: Values, *, pair: bool = True) -> Difference | None:
    """Return the difference of means with its t interval and test; None if either side has no value.

    Runs with the same seed share initial weights and data order, so the runs of `shared_runs` are compared pair
    by pair. Without a shared seed, or with `pair` false, Welch's test is used.
    """
    first, second, paired = _samples(values, reference, pair)
    n, n_reference = len(first), len(second)
    if min(n, n_reference) < 1:
        return None
    # Not the mean of the differences: tables subtract means, and an exact half must round to the same digit there.
    estimate = float(first.mean()) - float(second.mean())
    found = Difference("paired" if paired else "welch", n, n_reference, estimate)
    if min(n, n_reference) < 2:
        return found
    error = math.hypot(first.std(ddof=1), second.std(ddof=1))
    if paired:
        error = float((first - second).std(ddof=1))
        found = replace(found, spread=error, correlation=_correlation(first, second))
    # Differences that are equal but for rounding have no spread to test against.
    if error <= 1e-9 * max(1.0, abs(estimate)):
        return replace(found, interval=Interval(estimate, estimate))
    test = stats.ttest_rel(first, second) if paired else stats.ttest_ind(first, second, equal_var=False)
    return replace(
        found,
        degrees_of_freedom=float(test.df),
        interval=Interval(*map(float, test.confidence_interval(LEVEL))),
        t=float(test.statistic),
        p_value=float(test.pvalue),
    )


def welch(first: Summary, reference: Summary) -> Difference:
    """Return Welch's test from mean, standard deviation and n alone, as a paper prints them; no interval.

    Raises:
        ValueError: A mean or a standard deviation is missing.
    """
    if first.mean is None or first.std is None or reference.mean is None or reference.std is None:
        raise ValueError("Welch's test needs both means and both standard deviations")
    test = stats.ttest_ind_from_stats(
        first.mean, first.std, first.n, reference.mean, reference.std, reference.n, equal_var=False
    )
    estimate, t, p = first.mean - reference.mean, float(test.statistic), float(test.pvalue)
    return Difference("welch", first.n, reference.n, estimate, t=t, p_value=p)


def permutation_test(values: Values, reference: Values, *, pair: bool = True) -> Permutation | None:
    """Return a permutation test of the difference of means, which assumes no normal distribution.

    Paired seeds: the signs of the differences are flipped; otherwise the labels are permuted. Every arrangement
    is visited up to `PERMUTATION_RESAMPLES`; beyond, that many are drawn from a fixed seed. Few seeds bound the
    p-value from below (0.25 for three pairs, 0.0625 for five). None if either side has fewer than two values.
    """
    first, second, paired = _samples(values, reference, pair)
    if min(len(first), len(second)) < 2:
        return None
    sample = (first - second,) if paired else (first, second)
    arrangements = 2 ** len(first) if paired else math.comb(len(first) + len(second), len(first))
    if arrangements > PERMUTATION_RESAMPLES:
        p = _sign_flips(first - second) if paired else _label_permutations(first, second)
        return Permutation(p, 1 / (PERMUTATION_RESAMPLES + 1), exact=False)
    result = stats.permutation_test(
        sample,
        np.mean if paired else _difference_of_means,
        permutation_type="samples" if paired else "independent",
        vectorized=True,
        n_resamples=PERMUTATION_RESAMPLES,
    )
    return Permutation(float(result.pvalue), 2 / arrangements, exact=True)


def probability_of_improvement(values: Values, reference: Values) -> Improvement | None:
    """Return P(X > Y) + P(X = Y) / 2 over all pairs of runs (Agarwal et al. 2021; one task).

    The interval is rliable's: percentile bootstrap, each loss resampled on its own. With a handful of seeds it is
    too narrow, and where every run of one loss beats every run of the other it shrinks to a point. None if either
    side has no value.
    """
    first, second, _ = _samples(values, reference, pair=False)
    if min(len(first), len(second)) < 1:
        return None
    wins = 0.5 * (1 + np.sign(first[:, None] - second[None, :]))
    if min(wins.shape) < 2:
        return Improvement(float(wins.mean()), None)
    counts, base_counts = _resampled_counts(*wins.shape)
    # How often each run was drawn times how often it wins: the pairs of a resample need not be listed.
    shares = ((counts @ wins) * base_counts).sum(axis=1) / wins.size
    tail = (1 - LEVEL) / 2
    return Improvement(float(wins.mean()), Interval(*np.quantile(shares, [tail, 1 - tail]).tolist()))


def _samples(values: Values, reference: Values, pair: bool) -> tuple[Floats, Floats, bool]:
    """The runs to compare, and whether they are pairs."""
    own, base = shared_runs(values, reference)
    return _array(own), _array(base), pair and own.keys() == base.keys()


def _array(values: Values) -> Floats:
    sample = np.array([values[seed] for seed in sorted(values)], dtype=np.float64)
    if not np.isfinite(sample).all():
        raise ValueError(f"values must be finite: {dict(values)}")
    return sample


def _correlation(first: Floats, second: Floats) -> float | None:
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _difference_of_means(first: Any, second: Any, axis: int) -> Any:
    return np.mean(first, axis=axis) - np.mean(second, axis=axis)


def _sign_flips(deltas: Floats) -> float:
    generator = np.random.default_rng(0)
    kept = [
        part.astype(np.float64) @ deltas
        for rows in _blocks(len(deltas))
        # In parts that stay in the processor's cache as float64.
        for part in np.array_split(generator.integers(0, 2, (rows, len(deltas)), dtype=np.int8), PARTS)
    ]
    return _tail_share(2 * np.concatenate(kept) - deltas.sum(), float(deltas.sum()))


def _label_permutations(first: Floats, second: Floats) -> float:
    generator, pooled, n = np.random.default_rng(0), np.concatenate([first, second]), len(first)
    centred = pooled - pooled.mean()
    sums = [
        generator.permuted(np.tile(centred, (rows, 1)), axis=1)[:, :n].sum(axis=1)
        for rows in _blocks(len(pooled))
    ]
    return _tail_share(np.concatenate(sums), float(centred[:n].sum()))


def _tail_share(drawn: Floats, observed: float) -> float:
    """Share of resamples at least as extreme, the observed arrangement counted among them (Phipson, Smyth 2010)."""
    extreme = int((np.abs(drawn) >= abs(observed) * (1 - 1e-12)).sum())
    return (extreme + 1) / (len(drawn) + 1)


def _blocks(width: int) -> list[int]:
    """Numbers of rows of `width` that add up to `PERMUTATION_RESAMPLES`, each block of about `BLOCK` numbers."""
    rows = max(1, min(PERMUTATION_RESAMPLES, BLOCK // width))
    whole, rest = divmod(PERMUTATION_RESAMPLES, rows)
    return [rows] * whole + [rest] * (rest > 0)


@lru_cache(maxsize=1)
def _resampled_counts(*sizes: int) -> tuple[Floats, ...]:
    """How often each run is in each bootstrap resample of groups of these sizes, each (BOOTSTRAP_RESAMPLES, n).

    Drawn from a fixed seed, so comparisons of equal sizes share them.
    """
    generator, counts = np.random.default_rng(0), []
    for n in sizes:
        drawn = generator.integers(n, size=(BOOTSTRAP_RESAMPLES, n))
        drawn += n * np.arange(BOOTSTRAP_RESAMPLES)[:, None]
        counts.append(np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(float))
    return tuple(counts)
