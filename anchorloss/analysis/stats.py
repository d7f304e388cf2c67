"""Means, intervals, tests: what a few seeds of two losses can say about each other.

Everything here takes plain mappings seed -> value (Top-1 or Top-5 in percent, or any other score where more
is better) and returns small frozen results. A quantity that a sample cannot give is None, never 0: one seed
has no standard deviation, and without a spread there is no interval and no test. Knows nothing of torch or
of run folders.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]

LEVEL = 0.95
BOOTSTRAP_RESAMPLES = 20_000
PERMUTATION_RESAMPLES = 100_000


@dataclass(frozen=True)
class Summary:
    """`n` values, their mean and their sample standard deviation (divisor n - 1).

    mean is None for n = 0, std is None for n < 2.
    """

    n: int
    mean: float | None
    std: float | None


@dataclass(frozen=True)
class Interval:
    """A two-sided interval that covers the true value with probability `level`."""

    low: float
    high: float
    level: float = LEVEL


@dataclass(frozen=True)
class Difference:
    """Mean of one loss minus mean of the reference.

    design: "paired" (by seed; then `n` equals `n_reference` and both count the shared seeds) or "welch".
    spread: standard deviation of the paired differences, None under "welch".
    interval, standard_error, degrees_of_freedom: None where a group is too small to have a spread.
    t, p_value: also None where the spread is exactly zero; two-sided, for a true difference of zero.
    """

    design: str
    n: int
    n_reference: int
    estimate: float
    spread: float | None
    standard_error: float | None
    degrees_of_freedom: float | None
    interval: Interval | None
    t: float | None
    p_value: float | None


@dataclass(frozen=True)
class Permutation:
    """A two-sided permutation p-value, and the smallest that this design could have given."""

    p_value: float
    smallest_possible: float
    exact: bool


@dataclass(frozen=True)
class Improvement:
    """P(a run of the loss beats a run of the reference), ties counted half; interval None for a group of
    one.
    """

    probability: float
    interval: Interval | None


def summarise(values: Mapping[int, float]) -> Summary:
    """Mean and sample standard deviation of seed -> value. Raises ValueError for a value that is not
    finite.
    """
    return summarise_array(_array(values))


def summarise_array(sample: Floats) -> Summary:
    """The same for a plain array, shape (n,)."""
    n = len(sample)
    mean = float(sample.mean()) if n else None
    return Summary(n, mean, float(sample.std(ddof=1)) if n > 1 else None)


def mean_interval(values: Mapping[int, float], level: float = LEVEL) -> Interval | None:
    """Student's t interval of the mean; None for fewer than two values."""
    summary = summarise(values)
    if summary.mean is None or summary.std is None:
        return None
    return _t_interval(summary.mean, summary.std / math.sqrt(summary.n), summary.n - 1, level)


def are_paired(values: Mapping[int, float], reference: Mapping[int, float]) -> bool:
    """Whether two losses are compared seed by seed: every seed of the smaller group, at least two, is in
    the other.

    Decided by the seeds alone, never by the values. Runs with the same seed share initial weights and data
    order.
    """
    shared = values.keys() & reference.keys()
    return len(shared) >= 2 and len(shared) == min(len(values), len(reference))


def difference(
    values: Mapping[int, float], reference: Mapping[int, float], level: float = LEVEL
) -> Difference | None:
    """Difference of means with its t interval and test: paired where `are_paired`, Welch otherwise.

    None if either side has no value.
    """
    if not values or not reference:
        return None
    if not are_paired(values, reference):
        return welch(summarise(values), summarise(reference), level)
    deltas = paired_differences(values, reference)
    n, spread = len(deltas), float(deltas.std(ddof=1))
    shared = values.keys() & reference.keys()
    # Not the mean of the differences: a table subtracts means, and an exact half must round to the same digit there.
    own, other = (
        summarise({seed: side[seed] for seed in sorted(shared)}).mean for side in (values, reference)
    )
    assert own is not None
    assert other is not None
    estimate = own - other
    return _tested("paired", n, n, estimate, spread, spread / math.sqrt(n), n - 1, level)


def paired_differences(values: Mapping[int, float], reference: Mapping[int, float]) -> Floats:
    """Value minus reference for each shared seed, in the order of the seeds; shape (shared seeds,)."""
    shared = sorted(values.keys() & reference.keys())
    return _array({seed: values[seed] for seed in shared}) - _array(
        {seed: reference[seed] for seed in shared}
    )


def welch(first: Summary, reference: Summary, level: float = LEVEL) -> Difference:
    """Welch's test from mean, std and n alone, as a paper prints them (Welch 1947, Satterthwaite's degrees
    of freedom).

    Raises: ValueError if a mean is missing.
    """
    if first.mean is None or reference.mean is None:
        raise ValueError("Welch's test needs both means")
    estimate = first.mean - reference.mean
    if first.std is None or reference.std is None:
        return Difference("welch", first.n, reference.n, estimate, None, None, None, None, None, None)
    error = math.hypot(first.std / math.sqrt(first.n), reference.std / math.sqrt(reference.n))
    freedom = welch_degrees_of_freedom(first.std, first.n, reference.std, reference.n)
    return _tested("welch", first.n, reference.n, estimate, None, error, freedom, level)


def welch_degrees_of_freedom(first_std: float, first_n: int, second_std: float, second_n: int) -> float:
    """Satterthwaite's approximation; n1 + n2 - 2 where both spreads are zero."""
    a, b = first_std**2 / first_n, second_std**2 / second_n
    if a + b == 0:
        return float(first_n + second_n - 2)
    return (a + b) ** 2 / (a**2 / (first_n - 1) + b**2 / (second_n - 1))


def permutation_test(values: Mapping[int, float], reference: Mapping[int, float]) -> Permutation | None:
    """A check on the t test that assumes no normal distribution; the statistic is the difference of means.

    Paired seeds: the signs of the differences are flipped; otherwise the labels are permuted. All
    arrangements are visited while there are at most `PERMUTATION_RESAMPLES`, else that many are drawn from
    a fixed seed. With few seeds the smallest p-value that can come out is large (0.25 for three pairs,
    0.0625 for five).
    None if either side has fewer than two values.
    """
    if min(len(values), len(reference)) < 2:
        return None
    sample: tuple[Floats, ...]
    if are_paired(values, reference):
        sample = (paired_differences(values, reference),)
        kind, arrangements = "samples", 2 ** len(sample[0])
    else:
        sample = (_array(values), _array(reference))
        kind, arrangements = "independent", math.comb(len(values) + len(reference), len(values))
    result = stats.permutation_test(
        sample,
        _difference_of_means,
        permutation_type=kind,
        vectorized=True,
        n_resamples=PERMUTATION_RESAMPLES,
        random_state=np.random.default_rng(0),
    )
    exact = arrangements <= PERMUTATION_RESAMPLES
    smallest = 2 / arrangements if exact else 2 / (PERMUTATION_RESAMPLES + 1)
    return Permutation(float(result.pvalue), smallest, exact)


def probability_of_improvement(
    values: Mapping[int, float], reference: Mapping[int, float], level: float = LEVEL
) -> Improvement | None:
    """P(X > Y) + P(X = Y)/2 over all pairs of runs, as rliable defines it (Agarwal et al. 2021; one task).

    The interval is rliable's: percentile bootstrap, each loss resampled on its own. With a handful of seeds
    it is too narrow, and where every run of one loss beats every run of the other it shrinks to a point:
    read it with n.
    None if either side has no value.
    """
    if not values or not reference:
        return None
    first, second = _array(values), _array(reference)
    probability = float(_share_of_wins(first, second))
    if min(len(first), len(second)) < 2:
        return Improvement(probability, None)
    generator = np.random.default_rng(0)
    drawn = [
        sample[generator.integers(len(sample), size=(BOOTSTRAP_RESAMPLES, len(sample)))]
        for sample in (first, second)
    ]
    tail = (1 - level) / 2
    low, high = np.quantile(_share_of_wins(drawn[0], drawn[1]), [tail, 1 - tail])
    return Improvement(probability, Interval(float(low), float(high), level))


def _array(values: Mapping[int, float]) -> Floats:
    sample = np.array([values[seed] for seed in sorted(values)], dtype=np.float64)
    if not np.isfinite(sample).all():
        raise ValueError(f"values must be finite: {dict(values)}")
    return sample


def _t_interval(estimate: float, error: float, freedom: float, level: float) -> Interval:
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * error
    return Interval(estimate - half, estimate + half, level)


def _tested(
    design: str,
    n: int,
    n_reference: int,
    estimate: float,
    spread: float | None,
    error: float,
    freedom: float,
    level: float,
) -> Difference:
    t = p = None
    # Differences that are equal but for rounding have no spread to test against.
    if error > 1e-9 * max(1.0, abs(estimate)):
        t = estimate / error
        p = 2 * float(stats.t.sf(abs(t), freedom))
    interval = _t_interval(estimate, error, freedom, level)
    return Difference(design, n, n_reference, estimate, spread, error, freedom, interval, t, p)


def _difference_of_means(first: Any, second: Any = None, axis: int = -1) -> Any:
    mean = np.mean(first, axis=axis)
    return mean if second is None else mean - np.mean(second, axis=axis)


def _share_of_wins(first: Floats, second: Floats) -> Any:
    """Shapes (..., n) and (..., m) to (...): share of pairs won, ties counted half."""
    gap = first[..., :, None] - second[..., None, :]
    return (0.5 * (1 + np.sign(gap))).mean(axis=(-2, -1))
