"""Power of the two-sided t tests: how many seeds a difference needs, and which difference n seeds can detect.

With true difference d, standard error s and f degrees of freedom, t follows a noncentral t with noncentrality d / s;
power is the probability that |t| exceeds its critical value (Cohen 1988). All functions work on the scale of the score
(percentage points) and are symmetric in the sign of the difference.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable

import numpy as np
from scipy import optimize, special, stats

POWER = 0.8
ALPHA = 0.05
MOST_SEEDS = 1_000_000
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(400)
QUANTILES, WEIGHTS = (1 + _NODES) / 2, _NODE_WEIGHTS / 2


def paired_power(difference: float, spread: float, n: int, alpha: float = ALPHA) -> float:
    """Return the power of `n` pairs whose differences have standard deviation `spread` > 0."""
    return _power(difference * math.sqrt(n) / spread, n - 1, alpha)


def welch_power(difference: float, std: float, reference_std: float, n: int, alpha: float = ALPHA) -> float:
    """Return the power of `n` independent runs of each loss; at least one std > 0."""
    error = math.sqrt((std**2 + reference_std**2) / n)
    return _power(difference / error, welch_degrees_of_freedom(std, n, reference_std, n), alpha)


def paired_seeds(difference: float, spread: float, alpha: float = ALPHA) -> int | None:
    """Return the smallest number of pairs (at least 2) that detects `difference` with power `POWER`.

    None for a zero difference or spread, or where more than `MOST_SEEDS` would be needed.
    """
    if difference == 0 or spread == 0:
        return None
    return _smallest(lambda n: paired_power(difference, spread, n, alpha))


def welch_seeds(difference: float, std: float, reference_std: float, alpha: float = ALPHA) -> int | None:
    """Return the smallest number of independent runs of each loss that detects `difference` with power `POWER`.

    None as in `paired_seeds`.
    """
    if difference == 0 or std == reference_std == 0:
        return None
    return _smallest(lambda n: welch_power(difference, std, reference_std, n, alpha))


def paired_detectable(spread: float, n: int) -> float:
    """Return the minimum detectable difference of `n` >= 2 pairs."""
    return _root(lambda difference: paired_power(difference, spread, n), spread)


def welch_detectable(std: float, reference_std: float, n: int) -> float:
    """Return the minimum detectable difference of `n` >= 2 independent runs of each loss."""
    scale = math.hypot(std, reference_std)
    return _root(lambda difference: welch_power(difference, std, reference_std, n), scale)


def spread_bounds(freedom: float) -> tuple[float, float]:
    """Return the factors that take an observed standard deviation to the ends of its 95 % interval.

    From the chi-squared distribution with `freedom` degrees of freedom, for normally distributed values: with five
    pairs (freedom 4) the true spread is between 0.60 and 2.87 times the observed one.
    """
    low, high = (freedom / stats.chi2.ppf(q, freedom) for q in (0.975, 0.025))
    return math.sqrt(low), math.sqrt(high)


def welch_degrees_of_freedom(first_std: float, first_n: int, second_std: float, second_n: int) -> float:
    """Return Satterthwaite's approximation; n1 + n2 - 2 where both spreads are zero."""
    a, b = first_std**2 / first_n, second_std**2 / second_n
    if a + b == 0:
        return float(first_n + second_n - 2)
    return (a + b) ** 2 / (a**2 / (first_n - 1) + b**2 / (second_n - 1))


def _power(noncentrality: float, freedom: float, alpha: float) -> float:
    """P(|T| > critical) as the mean over S of Phi(d - cS) + Phi(-d - cS), where T = (Z + d) / S, S^2 =
    chi2_f / f.

    The integral over the quantiles of S by Gauss-Legendre; scipy's own noncentral t returns NaN for few
    degrees of freedom and a large noncentrality, which is where two or three seeds live.
    """
    critical = float(stats.t.isf(alpha / 2, freedom))
    s = np.sqrt(2 * special.gammaincinv(freedom / 2, QUANTILES) / freedom)
    beyond = special.ndtr(noncentrality - critical * s) + special.ndtr(-noncentrality - critical * s)
    return float(WEIGHTS @ beyond)


def _smallest(power_of: Callable[[int], float]) -> int | None:
    """Power grows with n."""
    place = bisect.bisect_left(range(2, MOST_SEEDS + 1), POWER, key=power_of)
    return place + 2 if place + 2 <= MOST_SEEDS else None


def _root(power_of: Callable[[float], float], scale: float) -> float:
    high = scale
    while power_of(high) < POWER:
        high *= 2
    return float(optimize.brentq(lambda difference: power_of(difference) - POWER, 0.0, high, xtol=1e-9))
