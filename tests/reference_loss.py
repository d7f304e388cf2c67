"""Equations 1 to 4 of the supplement, typed from the paper as plain loops over mpmath numbers.

Written apart from `anchorloss/loss.py`: no torch, no algebra, and the gradient is a difference quotient. `1 - q` is
kept beside `q`, so that scores of 1 - exp(-10000) do not ask for thousands of digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from mpmath import mp, mpf

DIGITS = 80
STEP = mpf("1e-30")


def exponents(anchor: str, gamma_target: float, gamma_background: float) -> tuple[float, float]:
    """gamma_t and gamma_b as Eq. 2 to 4 set them."""
    return {
        "none": (0.0, 0.0),
        "target": (gamma_target, 0.0),
        "background": (0.0, gamma_background),
        "both": (gamma_target, gamma_background),
    }[anchor]


def _score(logit: mpf) -> tuple[mpf, mpf]:
    """q and 1 - q."""
    return 1 / (1 + mp.exp(-logit)), 1 / (1 + mp.exp(logit))


def _anchors(logits: Sequence[mpf], target: int, slack: float) -> tuple[mpf, mpf]:
    """q_pos and 1 - q_neg, with the slack of the authors' code."""
    q_pos = max(_score(logit)[0] for i, logit in enumerate(logits) if i != target) + mpf(slack)
    one_minus_q_neg = _score(logits[target])[1] + mpf(slack)
    return min(mpf(1), q_pos), min(mpf(1), one_minus_q_neg)


def _factors(
    logits: Sequence[mpf], target: int, gamma_t: float, gamma_b: float, anchors: tuple[mpf, mpf]
) -> list[mpf]:
    q_pos, one_minus_q_neg = anchors
    factors = []
    for i, logit in enumerate(logits):
        q, one_minus_q = _score(logit)
        if i == target:
            factors.append((one_minus_q + q_pos) ** mpf(gamma_t))
        else:
            factors.append((one_minus_q_neg + q) ** mpf(gamma_b))
    return factors


def _loss(
    logits: Sequence[mpf], target: int, gamma_t: float, gamma_b: float, anchors: tuple[mpf, mpf]
) -> mpf:
    """Eq. 1, summed over classes; -log(q) is log(1 + exp(-logit)), -log(1 - q) is log(1 + exp(logit))."""
    total = mpf(0)
    for i, factor in enumerate(_factors(logits, target, gamma_t, gamma_b, anchors)):
        p = 1 if i == target else 0
        total += factor * p * mp.log1p(mp.exp(-logits[i]))
        total += factor * (1 - p) * mp.log1p(mp.exp(logits[i]))
    return total


@cache
def factors(
    logits: tuple[float, ...], target: int, gamma_t: float, gamma_b: float, slack: float
) -> tuple[mpf, ...]:
    """The modulating factor of every class."""
    with mp.workdps(DIGITS):
        numbers = [mpf(x) for x in logits]
        return tuple(_factors(numbers, target, gamma_t, gamma_b, _anchors(numbers, target, slack)))


@cache
def loss_and_gradient(
    logits: tuple[float, ...], target: int, gamma_t: float, gamma_b: float, slack: float, detach: bool
) -> tuple[mpf, tuple[mpf, ...]]:
    """The loss of one sample and its gradient by the logits.

    With `detach` the anchors stay what they are at `logits` while a logit is moved. Where two background classes tie for
    the largest score, the symmetric difference gives each half of the slope.
    """
    with mp.workdps(DIGITS):
        numbers = [mpf(x) for x in logits]
        fixed = _anchors(numbers, target, slack)

        def moved(i: int, step: mpf) -> mpf:
            there = [x + step if k == i else x for k, x in enumerate(numbers)]
            anchors = fixed if detach else _anchors(there, target, slack)
            return _loss(there, target, gamma_t, gamma_b, anchors)

        gradient = tuple((moved(i, STEP) - moved(i, -STEP)) / (2 * STEP) for i in range(len(numbers)))
        return _loss(numbers, target, gamma_t, gamma_b, fixed), gradient
