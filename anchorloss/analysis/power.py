"""How many seeds a difference needs: power of the two-sided t tests, from the noncentral t distribution.

With true difference d, standard error s and f degrees of freedom, t follows a noncentral t with
noncentrality d / s; power is the chance that |t| exceeds its critical value (Cohen 1988). All functions
work on the scale of the score (percentage points) and are symmetric in the sign of the difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import optimize, special, stats

from anchorloss.analysis.stats import welch_degrees_of_freedom

POWER = 0.8
ALPHA = 0.05
MOST_SEEDS = 1_000_000
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(400)
QUANTILES, WEIGHTS = (1 + _NODES) / 2, _NODE_WEIGHTS / 2


def paired_power(difference: float, spread: float, n: int, alpha: float = ALPHA) -> float:
    """Chance to detect `difference` with `n` pairs whose differences have standard deviation `spread` > 0."""
    return _power(difference * math.sqrt(n) / spread, n - 1, alpha)


def welch_power(difference: float, std: float, reference_std: float, n: int, alpha: float = ALPHA) -> float:
    """Chance to detect `difference` with `n` independent runs of each loss; at least one std > 0."""
    error = math.sqrt((std**2 + reference_std**2) / n)
    return _power(difference / error, welch_degrees_of_freedom(std, n, reference_std, n), alpha)


def paired_seeds(difference: float, spread: float, power: float = POWER, alpha: float = ALPHA) -> int | None:
    """Smallest number of pairs (at least 2) that detects `difference` with `power`.

    None for a zero difference or spread, or where more than `MOST_SEEDS` would be needed.
    """
    if difference == 0 or spread == 0:
        return None
    return _smallest(lambda n: paired_power(difference, spread, n, alpha), power)


def welch_seeds(
    difference: float, std: float, reference_std: float, power: float = POWER, alpha: float = ALPHA
) -> int | None:
    """Smallest number of independent runs of each loss that detects `difference` with `power`; None as
    above.
    """
    if difference == 0 or std == reference_std == 0:
        return None
    return _smallest(lambda n: welch_power(difference, std, reference_std, n, alpha), power)


def paired_detectable(spread: float, n: int, power: float = POWER, alpha: float = ALPHA) -> float:
    """The difference that `n` >= 2 pairs detect with `power`."""
    return _root(lambda difference: paired_power(difference, spread, n, alpha), power, spread)


def welch_detectable(
    std: float, reference_std: float, n: int, power: float = POWER, alpha: float = ALPHA
) -> float:
    """The difference that `n` >= 2 independent runs of each loss detect with `power`."""
    scale = math.hypot(std, reference_std)
    return _root(lambda difference: welch_power(difference, std, reference_std, n, alpha), power, scale)


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


def _smallest(power_of: Callable[[int], float], power: float) -> int | None:
    """Power grows with n: double until it suffices, then bisect."""
    high = 2
    while power_of(high) < power:
        high *= 2
        if high > MOST_SEEDS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        if power_of(middle) < power:
            low = middle
        else:
            high = middle
    return high


def _root(power_of: Callable[[float], float], power: float, scale: float) -> float:
    high = scale
    while power_of(high) < power:
        high *= 2
    return float(optimize.brentq(lambda difference: power_of(difference) - power, 0.0, high, xtol=1e-9))
