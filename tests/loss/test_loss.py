"""What the loss computes: the authors' cases, the equations, binary cross entropy at gamma 0, gradients by numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from anchorloss.loss import AnchorLoss, anchor_loss, modulation
from tests import reference_loss

# What the authors' own code computes; the file says of which commit, and how.
CASES = Path(__file__).resolve().parents[1] / "official_anchor_loss.json"
ANCHORS = ("none", "target", "background", "both")


def sample(samples: int = 4, classes: int = 5, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    logits = scale * torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (samples,), generator=generator)


def loss_and_gradient(logits, target, **arguments):
    logits = logits.clone().requires_grad_()
    loss = anchor_loss(logits, target, **arguments)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    return loss.detach(), gradient


def test_the_authors_own_cases():
    cases = json.loads(CASES.read_text())["cases"]
    assert len(cases) == 30
    for case in cases:
        logits = torch.tensor(case["logits"], dtype=torch.float64)
        loss, gradient = loss_and_gradient(
            logits,
            torch.tensor(case["target"]),
            gamma=case["gamma"],
            slack=case["slack"],
            anchor=case["anchor"],
        )
        assert abs(loss.item() - case["loss"]) < 1e-9
        expected = torch.tensor(case["grad"], dtype=torch.float64)
        assert (gradient - expected).abs().max() < 1e-9


@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("detach", [True, False])
def test_equations_1_to_4(anchor, detach):
    logits, target = sample()
    for gamma_t, gamma_b in ((0.5, 0.5), (1.0, 1.0), (2.0, 2.0), (0.7, 0.25), (0.0, 3.0)):
        for slack in (0.0, 0.05, 0.6):
            losses, gradient = loss_and_gradient(
                logits,
                target,
                anchor=anchor,
                slack=slack,
                reduction="none",
                detach=detach,
                gamma_target=gamma_t,
                gamma_background=gamma_b,
            )
            for n, row in enumerate(logits.tolist()):
                expected, slope = reference_loss.loss_and_gradient(
                    tuple(row),
                    int(target[n]),
                    *reference_loss.exponents(anchor, gamma_t, gamma_b),
                    slack,
                    detach,
                )
                assert float(losses[n]) == pytest.approx(float(expected), rel=1e-12, abs=0)
                assert gradient[n].tolist() == pytest.approx([float(x) for x in slope], rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("slack", [0.0, 0.05])
@pytest.mark.parametrize(
    "gammas", [{"gamma": 0.5}, {"gamma": 2.0}, {"gamma_target": 1.5, "gamma_background": 0.25}]
)
def test_gradcheck(anchor, detach, slack, gammas):
    """With `detach`, finite differences must not move the anchors: the logits that are one stay where they are."""
    logits, target = sample(2, 5, 1.5)
    free = torch.ones_like(logits, dtype=torch.bool)
    if detach and anchor in ("target", "both"):
        free.scatter_(1, logits.scatter(1, target[:, None], -torch.inf).argmax(1, keepdim=True), False)
    if detach and anchor in ("background", "both"):
        free.scatter_(1, target[:, None], False)

    def loss(moving):
        there = logits.masked_scatter(free, moving)
        return anchor_loss(
            there, target, anchor=anchor, slack=slack, reduction="none", detach=detach, **gammas
        )

    assert torch.autograd.gradcheck(loss, logits[free].clone().requires_grad_())


@pytest.mark.parametrize(
    "arguments",
    [
        {"anchor": "none"},
        {"gamma": 0.0, "anchor": "target"},
        {"gamma": 0.0, "anchor": "background", "slack": 0.05},
        {"gamma": 0.0, "anchor": "both", "detach": False},
        {"anchor": "background", "gamma_background": 0.0},
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gamma_0_is_binary_cross_entropy_bit_for_bit(arguments, dtype):
    logits, target = sample(64, 100)
    logits = logits.to(dtype)
    one_hot = F.one_hot(target, 100).to(torch.promote_types(dtype, torch.float32))
    for reduction in ("none", "sum", "mean"):
        ours, our_gradient = loss_and_gradient(logits, target, reduction=reduction, **arguments)
        plain = logits.clone().requires_grad_()
        losses = F.binary_cross_entropy_with_logits(plain.to(one_hot.dtype), one_hot, reduction="none").sum(1)
        theirs = losses if reduction == "none" else getattr(losses, reduction)()
        (their_gradient,) = torch.autograd.grad(theirs.sum(), plain)
        assert torch.equal(ours, theirs.detach())
        assert torch.equal(our_gradient, their_gradient)


@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("slack", [0.0, 0.05, 1.0])
def test_modulation_is_the_factors(anchor, slack):
    logits, target = sample()
    of_target, of_background = modulation(
        logits, target, anchor=anchor, slack=slack, gamma_target=0.7, gamma_background=2.0
    )
    for n, row in enumerate(logits.tolist()):
        label = int(target[n])
        gammas = reference_loss.exponents(anchor, 0.7, 2.0)
        expected = [float(x) for x in reference_loss.factors(tuple(row), label, *gammas, slack)]
        assert float(of_target[n]) == pytest.approx(expected[label], rel=1e-12)
        expected[label] = 1.0
        assert of_background[n].tolist() == pytest.approx(expected, rel=1e-12)


def test_modulation_times_cross_entropy_is_the_loss():
    logits, target = sample(6, 7)
    of_target, of_background = modulation(logits, target, 0.8, "both", 0.05)
    one_hot = F.one_hot(target, 7).bool()
    plain = F.binary_cross_entropy_with_logits(logits, one_hot.double(), reduction="none")
    product = plain * torch.where(one_hot, of_target[:, None], of_background)
    torch.testing.assert_close(
        anchor_loss(logits, target, 0.8, "both", 0.05, "none"), product.sum(1), rtol=1e-13, atol=0
    )


def test_extra_axes_are_samples():
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(3, 5, 2, 4, generator=generator, dtype=torch.float64)
    target = torch.randint(5, (3, 2, 4), generator=generator)
    rows, labels = logits.permute(0, 2, 3, 1).reshape(-1, 5), target.reshape(-1)
    for anchor in ANCHORS:
        losses, gradient = loss_and_gradient(logits, target, anchor=anchor, reduction="none")
        flat, flat_gradient = loss_and_gradient(rows, labels, anchor=anchor, reduction="none")
        assert losses.shape == target.shape
        assert torch.equal(losses.reshape(-1), flat)
        torch.testing.assert_close(
            gradient.permute(0, 2, 3, 1).reshape(-1, 5), flat_gradient, rtol=1e-13, atol=1e-16
        )
        of_target, of_background = modulation(logits, target, anchor=anchor)
        flat_target, flat_background = modulation(rows, labels, anchor=anchor)
        assert torch.equal(of_target.reshape(-1), flat_target)
        assert torch.equal(of_background.permute(0, 2, 3, 1).reshape(-1, 5), flat_background)


def test_one_sample_without_a_batch_axis():
    logits, target = sample(1, 5)
    for anchor in ANCHORS:
        for reduction in ("none", "sum", "mean"):
            loss, gradient = loss_and_gradient(logits[0], target[0], anchor=anchor, reduction=reduction)
            row, row_gradient = loss_and_gradient(logits, target, anchor=anchor, reduction="sum")
            assert loss.shape == ()
            assert torch.equal(loss, row)
            assert torch.equal(gradient, row_gradient[0])
        of_target, of_background = modulation(logits[0], target[0], anchor=anchor)
        assert of_target.shape == ()
        assert of_background.shape == (5,)


def test_reductions_are_over_samples():
    logits, target = sample()
    losses = anchor_loss(logits, target, reduction="none")
    assert losses.shape == (4,)
    assert anchor_loss(logits, target, reduction="sum").item() == pytest.approx(losses.sum().item())
    assert anchor_loss(logits, target).item() == pytest.approx(losses.mean().item())


def test_the_module_is_the_function():
    logits, target = sample()
    arguments = {"anchor": "both", "slack": 0.1, "detach": False, "gamma_target": 0.3}
    module = AnchorLoss(2.0, reduction="sum", **arguments)
    assert torch.equal(module(logits, target), anchor_loss(logits, target, 2.0, reduction="sum", **arguments))
    assert "slack=0.1" in repr(module)


def test_logits_without_samples_and_logits_that_do_not_lie_in_order():
    empty = anchor_loss(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64), reduction="none")
    assert empty.shape == (0,)
    logits, target = sample(6, 5)
    strided = logits.t().contiguous().t()
    for anchor in ANCHORS:
        ours, gradient = loss_and_gradient(strided, target, anchor=anchor, reduction="none")
        expected, expected_gradient = loss_and_gradient(logits, target, anchor=anchor, reduction="none")
        torch.testing.assert_close(ours, expected, rtol=1e-14, atol=0)
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-14, atol=0)


@pytest.mark.parametrize("anchor", ["target", "background", "both"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_many_samples_are_as_few(anchor, reduction):
    """Large batches are computed in blocks; the last of these is not full."""
    logits, target = sample(700, 1000)
    weight = torch.arange(1, 701).double() if reduction == "none" else torch.tensor(3.0, dtype=torch.float64)
    leaf = logits.clone().requires_grad_()
    loss = anchor_loss(leaf, target, anchor=anchor, reduction=reduction)
    (loss * weight).sum().backward()
    parts = [
        loss_and_gradient(part, labels, anchor=anchor, reduction="none")
        for part, labels in zip(logits.split(7), target.split(7), strict=True)
    ]
    losses, gradient = (torch.cat(part) for part in zip(*parts, strict=True))
    expected = losses if reduction == "none" else getattr(losses, reduction)()
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-13, atol=0)
    scale = weight[:, None] if reduction == "none" else weight / (700 if reduction == "mean" else 1)
    torch.testing.assert_close(leaf.grad, gradient * scale, rtol=1e-13, atol=0)


@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("detach", [True, False])
def test_not_a_number_is_not_hidden(anchor, detach):
    logits, target = sample()
    logits[1, 2] = torch.nan
    losses, gradient = loss_and_gradient(logits, target, anchor=anchor, detach=detach, reduction="none")
    assert losses.isnan().tolist() == [False, True, False, False]
    assert gradient.isnan().any(1).tolist() == [False, True, False, False]


def test_inputs_are_left_as_they_were_and_backward_can_be_repeated():
    logits, target = sample()
    for anchor in ANCHORS:
        for detach in (True, False):
            leaf, labels = logits.clone().requires_grad_(), target.clone()
            loss = anchor_loss(leaf, labels, anchor=anchor, detach=detach)
            loss.backward(retain_graph=True)
            once = leaf.grad.clone()
            loss.backward(retain_graph=True)
            assert torch.equal(leaf.grad, 2 * once)
            leaf.grad.zero_()  # in place: the gradient kept for the graph must not be this tensor
            loss.backward()
            assert torch.equal(leaf.detach(), logits)
            assert torch.equal(labels, target)
            assert torch.equal(leaf.grad, once)
            with pytest.raises(RuntimeError, match="second time"):
                loss.backward()


@pytest.mark.parametrize("anchor", ANCHORS)
def test_backward_for_many_losses_at_once(anchor):
    """`is_grads_batched`, as in a vectorized Jacobian, after which the graph can be used again."""
    logits, target = sample()
    leaf = logits.clone().requires_grad_()
    losses = anchor_loss(leaf, target, anchor=anchor, reduction="none")
    (jacobian,) = torch.autograd.grad(
        losses, leaf, torch.eye(4, dtype=torch.float64), is_grads_batched=True, retain_graph=True
    )
    (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    torch.testing.assert_close(jacobian.sum(0), gradient, rtol=1e-14, atol=0)
    assert (jacobian[0, 1:] == 0).all()


@pytest.mark.parametrize("function", [anchor_loss, modulation])
@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"gamma": -0.5}, ValueError, "gamma must be .* not -0.5"),
        ({"gamma": float("nan")}, ValueError, "gamma must be"),
        ({"gamma_target": -1.0}, ValueError, "gamma must be"),
        ({"gamma_background": float("inf")}, ValueError, "gamma must be"),
        ({"anchor": "bg"}, ValueError, "anchor must be one of none, target, background, both, not 'bg'"),
        ({"slack": -0.1}, ValueError, "slack must be"),
        ({"slack": 1.5}, ValueError, "slack must be"),
        ({"target": torch.zeros(3, dtype=torch.int64)}, ValueError, r"target must be \(4,\)"),
        ({"target": torch.zeros(4, 5, dtype=torch.int64)}, ValueError, r"target must be \(4,\)"),
        ({"target": torch.zeros(4)}, TypeError, r"use target\.long\(\)"),
        ({"target": torch.zeros(4, dtype=torch.bool)}, TypeError, r"use target\.long\(\)"),
        ({"logits": torch.zeros(4, 5, dtype=torch.int64)}, TypeError, "floating point"),
        ({"logits": torch.zeros(4, 1)}, ValueError, "two classes"),
        ({"logits": torch.zeros(())}, ValueError, "target must be"),
        ({"target": torch.tensor([0, 1, 2, 5])}, (IndexError, RuntimeError), "out of bounds"),
        ({"target": torch.tensor([0, 1, 2, -1])}, (IndexError, RuntimeError), "out of bounds"),
    ],
)
def test_what_is_refused(function, arguments, error, words):
    with pytest.raises(error, match=words):
        function(**{"logits": torch.zeros(4, 5), "target": torch.zeros(4, dtype=torch.int64), **arguments})


def test_labels_out_of_range_are_refused_by_every_anchor():
    for anchor in ANCHORS:
        with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
            anchor_loss(torch.zeros(2, 5), torch.tensor([0, 5]), anchor=anchor)


def test_a_wrong_reduction_is_refused_early():
    with pytest.raises(ValueError, match="reduction must be one of none, mean, sum"):
        AnchorLoss(reduction="average")
    with pytest.raises(ValueError, match="reduction"):
        anchor_loss(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), reduction="average")
