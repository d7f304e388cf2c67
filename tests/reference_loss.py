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
    return (
        gamma_target if anchor in ("target", "both") else 0.0,
        gamma_background if anchor in ("background", "both") else 0.0,
    )


def _score(logit: mpf) -> tuple[mpf, mpf]:
    """q and 1 - q."""
    return 1 / (1 + mp.exp(-logit)), 1 / (1 + mp.exp(logit))


def _anchors(logits: Sequence[mpf], positives: Sequence[bool], slack: float) -> tuple[mpf | None, mpf | None]:
    """q_pos and 1 - q_neg, with the slack of the authors' code; None without a background, or without a positive."""
    of_backgrounds = [_score(x)[0] for x, positive in zip(logits, positives, strict=True) if not positive]
    of_positives = [_score(x)[1] for x, positive in zip(logits, positives, strict=True) if positive]
    q_pos = min(mpf(1), max(of_backgrounds) + mpf(slack)) if of_backgrounds else None
    one_minus_q_neg = min(mpf(1), max(of_positives) + mpf(slack)) if of_positives else None
    return q_pos, one_minus_q_neg


def _factors(
    logit: mpf, gamma_t: float, gamma_b: float, anchors: tuple[mpf | None, mpf | None]
) -> tuple[mpf, mpf]:
    """The modulating factors of a class's two terms; 1 where the anchor is missing."""
    q_pos, one_minus_q_neg = anchors
    q, one_minus_q = _score(logit)
    of_target = mpf(1) if q_pos is None else (one_minus_q + q_pos) ** mpf(gamma_t)
    of_background = mpf(1) if one_minus_q_neg is None else (one_minus_q_neg + q) ** mpf(gamma_b)
    return of_target, of_background


@cache
def factors(
    logits: tuple[float, ...], target: int, gamma_t: float, gamma_b: float, slack: float
) -> tuple[mpf, ...]:
    """The modulating factor of every class for a class index."""
    with mp.workdps(DIGITS):
        numbers = [mpf(x) for x in logits]
        positives = [i == target for i in range(len(logits))]
        anchors = _anchors(numbers, positives, slack)
        both = [_factors(x, gamma_t, gamma_b, anchors) for x in numbers]
        return tuple(both[i][0 if positive else 1] for i, positive in enumerate(positives))


@cache
def loss_and_gradient(
    logits: tuple[float, ...],
    target: int | tuple[float, ...],
    gamma_t: float,
    gamma_b: float,
    slack: float,
    detach: bool,
) -> tuple[mpf, tuple[mpf, ...]]:
    """The loss of one sample, Eq. 1, and its gradient by the logits; `target` is a class index or probabilities.

    With `detach` the anchors stay what they are at `logits` while a logit is moved. Where two background classes tie for
    the largest score, the symmetric difference gives each half of the slope.
    """
    classes = range(len(logits))
    p = [float(i == target) for i in classes] if isinstance(target, int) else target
    positives = [x > 0 for x in p]
    with mp.workdps(DIGITS):
        numbers = [mpf(x) for x in logits]
        fixed = _anchors(numbers, positives, slack)

        def moved(i: int, step: mpf) -> mpf:
            there = [x + step if k == i else x for k, x in enumerate(numbers)]
            anchors = fixed if detach else _anchors(there, positives, slack)
            total = mpf(0)
            for x, share in zip(there, p, strict=True):
                of_target, of_background = _factors(x, gamma_t, gamma_b, anchors)
                # -log(q) is log(1 + exp(-x)), -log(1 - q) is log(1 + exp(x)).
                total += of_target * mpf(share) * mp.log1p(mp.exp(-x))
                total += of_background * (1 - mpf(share)) * mp.log1p(mp.exp(x))
            return total

        gradient = tuple((moved(i, STEP) - moved(i, -STEP)) / (2 * STEP) for i in classes)
        return moved(0, mpf(0)), gradient
