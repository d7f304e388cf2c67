"""Power of the two-sided t tests: how many seeds a difference needs, and which difference n seeds can detect.

With true difference d, standard error s and f degrees of freedom, t follows a noncentral t with noncentrality d / s;
power is the probability that |t| exceeds its critical value (Cohen 1988). All functions work on the scale of the score
(percentage points) and are symmetric in the sign of the difference.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize, special, stats

POWER = 0.8
ALPHA = 0.05
MOST_SEEDS = 1_000_000
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(400)
QUANTILES, WEIGHTS = (1 + _NODES) / 2, _NODE_WEIGHTS / 2


def power(difference: float, spreads: Sequence[float], n: int, alpha: float = ALPHA) -> float:
    """Return the power of `n` >= 2 pairs, or of `n` independent runs of each loss (Welch).

    Args:
        spreads: Standard deviation of the paired differences; for Welch's test those of the two losses. One is above 0.
        alpha: Level of the two-sided test.
    """
    variances = np.square(spreads)
    # Satterthwaite's approximation; n - 1 for pairs.
    freedom = (n - 1) * float(variances.sum() ** 2 / (variances**2).sum())
    shift = difference * math.sqrt(n) / math.hypot(*spreads)
    critical = float(stats.t.isf(alpha / 2, freedom))
    # P(|T| > critical) is the mean over S of Phi(d - cS) + Phi(-d - cS), where T = (Z + d) / S, S^2 = chi2_f / f: the
    # integral over the quantiles of S by Gauss-Legendre. scipy's own noncentral t returns NaN for few degrees of freedom
    # and a large noncentrality, which is where two or three seeds live.
    s = np.sqrt(2 * special.gammaincinv(freedom / 2, QUANTILES) / freedom)
    return float(WEIGHTS @ (special.ndtr(shift - critical * s) + special.ndtr(-shift - critical * s)))


def seeds(difference: float, spreads: Sequence[float], alpha: float = ALPHA) -> int | None:
    """Return the smallest number of seeds (at least 2) that detects `difference` with power `POWER`.

    Arguments as for `power`. None for a zero difference, without spread, or where it would be more than `MOST_SEEDS`.
    """
    if difference == 0 or not any(spreads):
        return None
    counts = range(2, MOST_SEEDS + 1)
    place = bisect.bisect_left(counts, POWER, key=lambda n: power(difference, spreads, n, alpha))
    return counts[place] if place < len(counts) else None


def detectable(spreads: Sequence[float], n: int) -> float:
    """Return the minimum detectable difference of `n` seeds; arguments as for `power`."""
    high = math.hypot(*spreads)
    while power(high, spreads, n) < POWER:
        high *= 2
    return float(optimize.brentq(lambda d: power(d, spreads, n) - POWER, 0.0, high, xtol=1e-9))


def spread_bounds(freedom: float) -> tuple[float, float]:
    """Return the factors that take an observed standard deviation to the ends of its 95 % interval.

    From the chi-squared distribution with `freedom` degrees of freedom, for normally distributed values: with five
    pairs (freedom 4) the true spread is between 0.60 and 2.87 times the observed one.
    """
    low, high = (freedom / stats.chi2.ppf(q, freedom) for q in (0.975, 0.025))
    return math.sqrt(low), math.sqrt(high)
