"""Logits up to 1e4 in every type: loss and gradient are finite and are what 80 digits say, within rounding."""

from __future__ import annotations

import math

import pytest
import torch
from mpmath import mp, mpf

from anchorloss.loss import anchor_loss, modulation
from tests import reference_loss

# Saturated both ways, mixed with small ones; where float32 exp underflows (89, 104); ties; zeros of both signs.
# (logits, target). All but 1e4 and -87.5 are exact in every type; those two are rounded to it first.
SAMPLES = (
    ((1e4, -1e4, -1e4, -1e4), 0),
    ((-1e4, 1e4, -1e4, 1e4), 0),
    ((1e4, 1e4, 1e4, 1e4), 2),
    ((-1e4, -1e4, -1e4, -1e4), 1),
    ((89.0, -104.0, 2.0**-10, -89.0), 0),
    ((104.0, -89.0, -104.0, -88.0), 0),
    ((88.0, -96.0, -100.0, -87.5), 0),
    ((20.0, -20.0, -18.0, -17.0), 0),
    ((1e4, -20.0, 3.0, -104.0), 3),
    ((2.0**-10, -(2.0**-10), 104.0, 0.5), 2),
    ((0.0, -0.0, -0.0, -5.0), 1),
    ((-3.0, 2.0, 2.0, 1.0), 0),
    ((5.0, -104.0, -104.0, -1e4), 0),
)
# Relative and absolute rounding of a gradient; the reference's own difference quotient is good to 1e-45.
GRADIENT = {
    torch.float64: (1e-14, 1e-45),
    torch.float32: (2e-6, 2e-38),
    torch.bfloat16: (2.0**-8, 2e-38),
    torch.float16: (2.0**-11, 2.0**-25),
}
LOSS = {torch.float64: (1e-14, 1e-307), torch.float32: (2e-6, 2e-38)}


def _gammas(anchor: str) -> tuple[float, ...]:
    return (0.5,) if anchor == "none" else (0.25, 0.5, 1.0, 2.0)


@pytest.mark.parametrize("dtype", GRADIENT, ids=str)
@pytest.mark.parametrize("anchor", ["none", "target", "background", "both"])
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("slack", [0.0, 0.05])
def test_loss_and_gradient(dtype, anchor, detach, slack):
    # Half-precision logits are computed in float32: only their gradient is rounded to their own type.
    computed_in = torch.promote_types(dtype, torch.float32)
    of_gradient, of_loss = GRADIENT[dtype], LOSS[computed_in]
    logits = torch.tensor([row for row, _ in SAMPLES], dtype=torch.float64).to(dtype)
    target = torch.tensor([label for _, label in SAMPLES])
    for gamma in _gammas(anchor):
        leaf = logits.clone().requires_grad_()
        losses = anchor_loss(leaf, target, gamma, anchor, slack, "none", detach=detach)
        losses.sum().backward()
        assert losses.dtype == computed_in
        assert leaf.grad.dtype == dtype
        for row, label, loss, gradient in zip(
            logits.double().tolist(),
            target.tolist(),
            losses.tolist(),
            leaf.grad.double().tolist(),
            strict=True,
        ):
            gammas = reference_loss.exponents(anchor, gamma, gamma)
            expected, slope = reference_loss.loss_and_gradient(tuple(row), label, *gammas, slack, detach)
            what = f"gamma {gamma}, logits {row}, target {label}"
            # torch's binary cross entropy, which "none" is bit for bit, takes x from x + exp(-x) and 1 from q.
            lost = torch.finfo(computed_in).eps if anchor == "none" else 0.0
            of_sum = lost * sum(abs(x) for x in row)
            assert abs(loss - expected) <= of_loss[0] * expected + of_loss[1] + of_sum, what
            # Without detach, slopes of opposite sign meet at the target; their rounding is that of the larger.
            meeting = 0.0 if detach else of_loss[0] * max(abs(x) for x in slope)
            for ours, theirs in zip(gradient, slope, strict=True):
                rounding = max(of_gradient[0] * 1.01 * abs(theirs), of_gradient[1])
                assert abs(ours - theirs) <= rounding + meeting + lost, what


@pytest.mark.parametrize("dtype", GRADIENT, ids=str)
def test_factors(dtype):
    relative, _ = LOSS[torch.promote_types(dtype, torch.float32)]
    logits = torch.tensor([row for row, _ in SAMPLES], dtype=torch.float64).to(dtype)
    target = torch.tensor([label for _, label in SAMPLES])
    for gamma in (0.25, 0.5, 1.0, 2.0):
        of_target, of_background = modulation(logits, target, gamma, "both")
        for n, row in enumerate(logits.double().tolist()):
            expected = reference_loss.factors(tuple(row), int(target[n]), gamma, gamma, 0.0)
            for i, factor in enumerate(expected):
                ours = float(of_target[n] if i == int(target[n]) else of_background[n, i])
                # exp(-104) ** 0.25 is 5e-12, but exp(-104) is below the smallest float32.
                assert math.isclose(ours, factor, rel_tol=relative, abs_tol=1e-37**gamma)


def test_the_reference_is_the_equations_as_printed():
    """1 - q + q_pos and log(1 - q) computed as they stand, with digits enough to hold 1 - exp(-1000)."""
    logits, target, gamma = (1000.0, -1000.0, 7.0), 1, 0.25
    ours, _ = reference_loss.loss_and_gradient(logits, target, gamma, gamma, 0.0, True)
    with mp.workdps(1000):
        q = [1 / (1 + mp.exp(-mpf(x))) for x in logits]
        q_pos, q_neg = max(q[0], q[2]), q[1]
        total = mpf(0)
        for i, p in enumerate((0, 1, 0)):
            total -= (1 - q[i] + q_pos) ** mpf(gamma) * p * mp.log(q[i])
            total -= (1 + q[i] - q_neg) ** mpf(gamma) * (1 - p) * mp.log(1 - q[i])
    assert abs(ours - total) < mpf("1e-70") * total
