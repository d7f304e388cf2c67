"""What the loss computes: the authors' cases, the equations at ordinary and extreme logits, and binary cross entropy."""

from __future__ import annotations

import doctest
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf
from torch.nn import functional as F

import anchorloss.loss
from anchorloss.loss import AnchorLoss, anchor_loss, modulation
from tests import reference_loss
from tests.loss.cases import ANCHORS, equation_1, loss_and_gradient, sample

# What the authors' own code computes; the file says of which commit, and how.
CASES = Path(__file__).resolve().parents[1] / "official_anchor_loss.json"

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
    ((3.0, -1.0, 0.5, 1.5), 2),
)
# Relative and absolute rounding of a gradient; the reference's own difference quotient is good to 1e-45.
GRADIENT = {
    torch.float64: (1e-14, 1e-45),
    torch.float32: (2e-6, 2e-38),
    torch.bfloat16: (2.0**-8, 2e-38),
    torch.float16: (2.0**-11, 2.0**-25),
}
LOSS = {torch.float64: (1e-14, 1e-307), torch.float32: (2e-6, 2e-38)}


def test_the_authors_own_cases():
    cases = json.loads(CASES.read_text())["cases"]
    assert len(cases) == 30
    for case in cases:
        logits = torch.tensor(case["logits"], dtype=torch.float64)
        arguments = {name: case[name] for name in ("gamma", "slack", "anchor")}
        loss, gradient = loss_and_gradient(logits, torch.tensor(case["target"]), **arguments)
        assert abs(loss.item() - case["loss"]) < 1e-9
        assert (gradient - torch.tensor(case["grad"], dtype=torch.float64)).abs().max() < 1e-9


@pytest.mark.parametrize("dtype", GRADIENT, ids=str)
@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("slack", [0.0, 0.05])
def test_loss_and_gradient_in_80_digits(dtype, anchor, detach, slack):
    # Half-precision logits are computed in float32: only their gradient is rounded to their own type.
    computed_in = torch.promote_types(dtype, torch.float32)
    of_gradient, of_loss = GRADIENT[dtype], LOSS[computed_in]
    logits = torch.tensor([row for row, _ in SAMPLES], dtype=torch.float64).to(dtype)
    target = torch.tensor([label for _, label in SAMPLES])
    for gamma in (0.5,) if anchor == "none" else (0.25, 0.5, 1.0, 2.0):
        leaf = logits.clone().requires_grad_()
        losses = anchor_loss(leaf, target, gamma, anchor, slack, "none", detach=detach)
        losses.sum().backward()
        assert losses.dtype == computed_in
        assert leaf.grad.dtype == dtype
        rows = (logits.double().tolist(), target.tolist(), losses.tolist(), leaf.grad.double().tolist())
        for row, label, loss, gradient in zip(*rows, strict=True):
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
def test_factors_in_80_digits(dtype):
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
        assert (of_background.gather(1, target[:, None]) == 1).all()


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


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32),
    anchor=st.sampled_from(ANCHORS),
    kind=st.sampled_from(("index", "smoothing", "ignored", "soft", "multi-hot")),
    reduction=st.sampled_from(("none", "mean", "sum")),
    gammas=st.tuples(st.floats(0, 3), st.floats(0, 3)),
    slack=st.floats(0, 1),
    extras=st.sets(st.sampled_from(("weight", "pos_weight", "mask", "dense", "attached", "threshold"))),
)
def test_any_arguments_against_loops(seed, anchor, kind, reduction, gammas, slack, extras):
    generator, (samples, classes) = torch.Generator().manual_seed(seed), (3, 4)

    def random(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    logits = 24 * random(samples, classes) - 12
    weights = {name: 3 * random(classes) for name in ("weight", "pos_weight") if name in extras}
    counts = random(samples, classes) > (0.4 if "mask" in extras else -1)
    threshold, smoothing = 0.3 if "threshold" in extras else 0.0, 0.2 if kind == "smoothing" else 0.0
    arguments = {**weights, "mask": counts} if "mask" in extras else dict(weights)
    if kind in ("soft", "multi-hot"):
        target = random(samples, classes)
        target = (target > 0.5).double() if kind == "multi-hot" else target.where(target > 0.4, 0.0)
        target[0, 0] = 1.0  # every p between 0 and 1 is refused
        p, positives = target, target > threshold
    else:
        target = torch.randint(classes, (samples,), generator=generator)
        positives = F.one_hot(target, classes) > 0
        p = positives.double() * (1 - smoothing) + smoothing / classes
        if kind == "ignored":
            arguments["ignore_index"] = int(target[0])
            counts = counts & (target != target[0])[:, None]
    arguments |= {"slack": slack, "label_smoothing": smoothing, "positive_threshold": threshold}
    arguments |= {"anchor": anchor, "reduction": reduction, "detach": "attached" not in extras}
    x, y = logits, target
    if "dense" in extras:  # the samples are pixels of one image
        x, y = logits.T[None], target.T[None] if target.ndim == 2 else target[None]
        arguments |= {"mask": arguments["mask"].T} if "mask" in extras else {}
    loss, gradient = loss_and_gradient(x, y, gamma_target=gammas[0], gamma_background=gammas[1], **arguments)
    gradient = gradient[0].T if "dense" in extras else gradient

    ones, exponents = torch.ones(classes), reference_loss.exponents(anchor, *gammas)
    of_classes = [weights.get(name, ones).tolist() for name in ("weight", "pos_weight")]
    common = (exponents, slack, arguments["detach"], *of_classes)
    rows = zip(logits.tolist(), p.tolist(), positives.tolist(), counts.tolist(), strict=True)
    results = zip(*(equation_1(*row, *common) for row in rows), strict=True)
    expected, slope = (torch.tensor(result, dtype=torch.float64) for result in results)
    if reduction != "none":
        count = max(1, int(counts.any(1).sum())) if reduction == "mean" else 1
        expected, slope = expected.sum() / count, slope / count
    torch.testing.assert_close(loss.reshape(expected.shape), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, slope, rtol=1e-12, atol=1e-12)


WITHOUT_MODULATION = ({"anchor": "none"}, {"gamma": 0.0, "anchor": "both"}, {"gamma_background": 0.0})


@pytest.mark.parametrize("arguments", WITHOUT_MODULATION)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gamma_0_is_binary_cross_entropy_bit_for_bit(arguments, dtype, block):
    logits, target = sample(64, 100, dtype=dtype)
    one_hot = F.one_hot(target, 100).to(torch.promote_types(dtype, torch.float32))
    for reduction in ("none", "sum", "mean"):
        ours, our_gradient = loss_and_gradient(logits, target, reduction=reduction, **arguments)
        plain = logits.clone().requires_grad_()
        losses = F.binary_cross_entropy_with_logits(plain.to(one_hot.dtype), one_hot, reduction="none").sum(1)
        theirs = losses if reduction == "none" else getattr(losses, reduction)()
        (their_gradient,) = torch.autograd.grad(theirs.sum(), plain)
        # A vector unit rounds the last elements of a block otherwise than those of a whole batch.
        tolerance = {"rtol": 0, "atol": 0} if block > 1 else {}
        torch.testing.assert_close(ours, theirs.detach(), **tolerance)
        torch.testing.assert_close(our_gradient, their_gradient, **tolerance)


@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("detach", [True, False])
def test_not_a_number_is_not_hidden(anchor, detach):
    logits, target = sample()
    logits[1, 2] = torch.nan
    losses, gradient = loss_and_gradient(logits, target, anchor=anchor, detach=detach, reduction="none")
    assert losses.isnan().tolist() == [False, True, False, False]
    assert gradient.isnan().any(1).tolist() == [False, True, False, False]


def test_the_module_is_the_function_and_shows_what_is_set():
    logits, target = sample()
    arguments = {"anchor": "both", "gamma_target": 0.3, "pos_weight": 2.5, "weight": torch.ones(5)}
    module = AnchorLoss(2.0, reduction="sum", detach=False, **arguments)
    expected = anchor_loss(logits, target, 2.0, reduction="sum", detach=False, **arguments)
    assert torch.equal(module(logits, target), expected)
    assert dict(module.named_buffers()).keys() == {"weight"}
    assert module.double().weight.dtype == torch.float64
    for shown in ("gamma=2.0", "anchor='both'", "detach=False", "pos_weight=2.5", "weight=tensor of (5,)"):
        assert shown in repr(module)
    assert repr(AnchorLoss()) == "AnchorLoss()"
    with pytest.raises(ValueError, match="reduction must be one of none, mean, sum"):
        AnchorLoss(reduction="average")


def test_the_example():
    assert doctest.testmod(anchorloss.loss) == (0, 4)
