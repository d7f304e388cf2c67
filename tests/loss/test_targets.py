"""Probabilities, label smoothing, class weights and ignored samples, against Eq. 1 in loops."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from anchorloss.loss import AnchorLoss, anchor_loss, modulation
from tests import reference_loss

ANCHORS = ("none", "target", "background", "both")
WEIGHT = (0.5, 2.0, 1.0, 0.0, 3.0)
POS_WEIGHT = (4.0, 0.25, 1.5, 2.0, 1.0)
PROBABILITIES = (
    (0.0, 0.0, 1.0, 0.0, 0.0),  # one-hot
    (0.3, 0.0, 0.0, 0.7, 0.0),  # mixup
    (1.0, 0.0, 1.0, 1.0, 0.0),  # multi-hot
    (0.0, 0.0, 0.0, 0.0, 0.0),  # no positive
    (1.0, 1.0, 1.0, 1.0, 1.0),  # no background
    (0.2, 0.9, 0.4, 0.1, 1.0),  # no background, soft
)


def sample(samples: int = 6, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    logits = 3 * torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (samples,), generator=generator)


def loss_and_gradient(logits, target, **arguments):
    logits = logits.clone().requires_grad_()
    loss = anchor_loss(logits, target, **arguments)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    return loss.detach(), gradient


def check_against_loops(logits, target, *, anchor, slack, detach, gammas=(0.7, 1.5), **arguments):
    tensors = {
        key: torch.tensor(value, dtype=torch.float64) if isinstance(value, tuple) else value
        for key, value in arguments.items()
    }
    losses, gradient = loss_and_gradient(
        logits,
        target,
        anchor=anchor,
        slack=slack,
        detach=detach,
        reduction="none",
        gamma_target=gammas[0],
        gamma_background=gammas[1],
        **tensors,
    )
    for n, row in enumerate(logits.tolist()):
        one = target[n].tolist()
        expected, slope = reference_loss.loss_and_gradient(
            tuple(row),
            tuple(one) if isinstance(one, list) else one,
            *reference_loss.exponents(anchor, *gammas),
            slack,
            detach,
            **arguments,
        )
        assert float(losses[n]) == pytest.approx(float(expected), rel=1e-12, abs=1e-14)
        assert gradient[n].tolist() == pytest.approx([float(x) for x in slope], rel=1e-11, abs=1e-12)


@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("slack", [0.0, 0.1])
@pytest.mark.parametrize("weights", [{}, {"weight": WEIGHT, "pos_weight": POS_WEIGHT}])
def test_probabilities(anchor, detach, slack, weights):
    logits, _ = sample()
    target = torch.tensor(PROBABILITIES, dtype=torch.float64)
    check_against_loops(logits, target, anchor=anchor, slack=slack, detach=detach, **weights)


@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize(
    "arguments",
    [
        {"label_smoothing": 0.1},
        {"label_smoothing": 1.0},
        {"weight": WEIGHT},
        {"pos_weight": POS_WEIGHT},
        {"weight": WEIGHT, "pos_weight": POS_WEIGHT, "label_smoothing": 0.2},
    ],
)
def test_class_indices_with_other_arguments(anchor, detach, arguments):
    logits, target = sample()
    check_against_loops(logits, target, anchor=anchor, slack=0.05, detach=detach, **arguments)


@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_class_indices_are_their_one_hot_vectors(anchor, detach, dtype):
    logits, target = sample()
    arguments = {"anchor": anchor, "detach": detach, "weight": torch.tensor(WEIGHT), "reduction": "none"}
    ours = loss_and_gradient(logits, target.to(dtype), **arguments)
    one_hot = loss_and_gradient(logits, F.one_hot(target, 5).double(), **arguments)
    torch.testing.assert_close(ours, one_hot, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("arguments", [{"anchor": "none"}, {"gamma": 0.0, "anchor": "both"}])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gamma_0_is_binary_cross_entropy_with_the_same_arguments(arguments, smoothing):
    logits, target = sample()
    weights = {"weight": torch.tensor(WEIGHT).double(), "pos_weight": torch.tensor(POS_WEIGHT).double()}
    p = F.one_hot(target, 5).double() * (1 - smoothing) + smoothing / 5
    expected = F.binary_cross_entropy_with_logits(logits, p, reduction="none", **weights).sum(1)
    ours = anchor_loss(logits, target, label_smoothing=smoothing, reduction="none", **weights, **arguments)
    torch.testing.assert_close(ours, expected, rtol=1e-14, atol=0)
    assert torch.equal(anchor_loss(logits, p, reduction="none", **weights, **arguments), expected)


@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("ignore_index", [-100, 255, 2])
@pytest.mark.parametrize("arguments", [{}, {"label_smoothing": 0.1, "weight": torch.tensor(WEIGHT)}])
def test_ignored_samples_count_for_nothing(anchor, detach, ignore_index, arguments):
    logits, target = sample(8)
    target[target == 2] = 3
    ignored = torch.tensor([True, False, False, True, False, False, True, False])
    some = target.masked_fill(ignored, ignore_index)
    logits[0, 1] = torch.nan  # a sample that is left out may hold anything
    logits[3] = torch.inf
    arguments = {**arguments, "anchor": anchor, "detach": detach}
    for reduction in ("none", "sum", "mean"):
        loss, gradient = loss_and_gradient(
            logits, some, ignore_index=ignore_index, reduction=reduction, **arguments
        )
        rest, rest_gradient = loss_and_gradient(
            logits[~ignored], target[~ignored], reduction=reduction, **arguments
        )
        if reduction == "none":
            assert (loss[ignored] == 0).all()
            loss = loss[~ignored]
        # Without ignored samples "none" is torch's binary cross entropy, whose gradient subtracts 1 from q.
        atol = 1e-15 if anchor == "none" else 0
        torch.testing.assert_close(loss, rest, rtol=1e-14, atol=atol)
        torch.testing.assert_close(gradient[~ignored], rest_gradient, rtol=1e-14, atol=atol)
        assert (gradient[ignored] == 0).all()


@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("detach", [True, False])
def test_the_mean_over_no_samples_is_zero(anchor, detach):
    logits, target = sample()
    loss, gradient = loss_and_gradient(logits, torch.full_like(target, -100), anchor=anchor, detach=detach)
    assert loss == 0
    assert (gradient == 0).all()
    loss, gradient = loss_and_gradient(logits[:0], target[:0], anchor=anchor, detach=detach)
    assert loss == 0
    assert gradient.shape == (0, 5)


@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("detach", [True, False])
def test_dense_predictions_are_samples(anchor, detach):
    for shape in ((2, 5, 3), (2, 5, 3, 4)):
        check_dense(anchor, detach, shape)


def test_large_dense_predictions_are_samples():
    """They are computed in blocks, of which the last is not full."""
    check_dense("both", True, (3, 5, 199, 151))
    check_dense("both", True, (700, 5, 11, 11))


def check_dense(anchor, detach, shape):
    generator = torch.Generator().manual_seed(2)
    logits = 3 * torch.randn(*shape, generator=generator, dtype=torch.float64)
    logits.view(-1)[::7] *= 40  # beyond 80, too
    target = torch.randint(5, shape[:1] + shape[2:], generator=generator)
    target[0, 0] = 255
    p = torch.rand(*shape, generator=generator, dtype=torch.float64)
    p = p.where(p > 0.5, 0.0)
    weights = {"weight": torch.tensor(WEIGHT), "pos_weight": torch.tensor(POS_WEIGHT)}
    for labels, arguments in (
        (target, {"ignore_index": 255}),
        (target, {"ignore_index": 255, **weights}),
        (target, {"ignore_index": 255, "label_smoothing": 0.1}),
        (p, {}),
        (p, weights),
    ):
        arguments = {**arguments, "anchor": anchor, "detach": detach, "slack": 0.05}
        rows = logits.movedim(1, -1).reshape(-1, 5)
        flat = labels.movedim(1, -1).reshape(-1, 5) if labels is p else labels.reshape(-1)
        for reduction in ("none", "mean"):
            loss, gradient = loss_and_gradient(logits, labels, reduction=reduction, **arguments)
            expected, slope = loss_and_gradient(rows, flat, reduction=reduction, **arguments)
            torch.testing.assert_close(loss.reshape(-1), expected.reshape(-1), rtol=1e-12, atol=1e-300)
            torch.testing.assert_close(gradient.movedim(1, -1).reshape(-1, 5), slope, rtol=1e-11, atol=1e-16)
    last = (
        logits.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else logits.mT.contiguous().mT
    )
    torch.testing.assert_close(
        loss_and_gradient(last, target, anchor=anchor, detach=detach, ignore_index=255),
        loss_and_gradient(logits, target, anchor=anchor, detach=detach, ignore_index=255),
        rtol=1e-12,
        atol=1e-15,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("dense", [False, True])
def test_extremes_are_finite(dtype, anchor, detach, dense):
    values = (1e4, -1e4, 104.0, -104.0, 80.5, -89.0, 0.0, -0.0)
    logits = torch.cartesian_prod(*[torch.tensor(values)] * 3).to(dtype)
    logits = torch.cat([logits, logits[:, :2]], 1)
    indices = torch.arange(len(logits)) % 5
    indices[::6] = -100
    cases = [(indices, {}), (indices, {"label_smoothing": 0.1}), (indices, {"weight": torch.tensor(WEIGHT)})]
    cases += [(torch.tensor(p, dtype=dtype).expand(len(logits), 5), {}) for p in PROBABILITIES]
    cases += [(cases[-1][0], {"weight": torch.tensor(WEIGHT), "pos_weight": torch.tensor(POS_WEIGHT)})]
    for target, arguments in cases:
        if dense:
            target = target.T[None] if target.ndim == 2 else target[None]
        for slack in (0.0, 0.05):
            loss, gradient = loss_and_gradient(
                logits.T[None] if dense else logits,
                target,
                anchor=anchor,
                detach=detach,
                slack=slack,
                reduction="none",
                **arguments,
            )
            assert loss.isfinite().all()
            assert gradient.isfinite().all()


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_ignored_samples_when_the_graph_is_used_again(reduction):
    logits, target = sample()
    target[1], logits[1] = -100, torch.inf
    leaf = logits.requires_grad_()
    loss = anchor_loss(leaf, target, reduction=reduction).sum()
    (once,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    (again,) = torch.autograd.grad(loss, leaf)
    assert (once[1] == 0).all()
    assert torch.equal(once, again)


@pytest.mark.parametrize("anchor", ANCHORS)
def test_dense_float32_is_float64_rounded(anchor):
    """Dense float32 predictions have formulas of their own, with and without an exponential that overflows."""
    generator = torch.Generator().manual_seed(6)
    logits = 4 * torch.randn(2, 5, 3, 50, generator=generator)
    target = torch.randint(5, (2, 3, 50), generator=generator)
    for largest in (0.0, 200.0):
        logits[0, 2, 1, 1] += largest
        for gamma in (0.3, 0.5, 2.0):
            arguments = {"gamma": gamma, "anchor": anchor, "slack": 0.05, "reduction": "none"}
            ours = loss_and_gradient(logits, target, **arguments)
            exact = loss_and_gradient(logits.double(), target, **arguments)
            for mine, true in zip(ours, exact, strict=True):
                torch.testing.assert_close(mine, true.float(), rtol=2e-5, atol=1e-6)


def test_gradients_reach_a_target_and_weights_that_are_learned():
    """As with binary_cross_entropy_with_logits."""
    logits, _ = sample(2)
    p = torch.tensor(PROBABILITIES[1:3], dtype=torch.float64).clamp(0.1, 0.9).requires_grad_()
    weight = torch.tensor(WEIGHT, dtype=torch.float64, requires_grad=True)

    def loss(p, weight):
        return anchor_loss(logits, p, anchor="both", weight=weight, pos_weight=weight)

    assert torch.autograd.gradcheck(loss, (p, weight))


def test_modulation_leaves_ignored_samples_alone():
    logits, target = sample()
    expected = modulation(logits, target, anchor="both")
    target[1] = 7
    of_target, of_background = modulation(logits, target, anchor="both", ignore_index=7)
    assert of_target[1] == 1
    assert (of_background[1] == 1).all()
    assert torch.equal(of_target[2:], expected[0][2:])
    assert torch.equal(of_background[2:], expected[1][2:])


def test_the_module_keeps_weights_as_buffers_and_shows_what_is_set():
    logits, target = sample()
    arguments = {"weight": torch.tensor(WEIGHT), "ignore_index": 3, "label_smoothing": 0.1}
    module = AnchorLoss(1.0, **arguments)
    assert torch.equal(module(logits, target), anchor_loss(logits, target, 1.0, **arguments))
    assert dict(module.named_buffers()).keys() == {"weight"}
    assert module.double().weight.dtype == torch.float64
    assert repr(module) == "AnchorLoss(gamma=1.0, weight=tensor of (5,), ignore_index=3, label_smoothing=0.1)"
    assert repr(AnchorLoss()) == "AnchorLoss()"
    assert "detach=False, gamma_target=0.5" in repr(AnchorLoss(detach=False, gamma_target=0.5))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"label_smoothing": 1.5}, ValueError, "label_smoothing must be from 0 to 1, not 1.5"),
        ({"weight": torch.ones(4)}, ValueError, r"weight must have shape \(5,\), .* not \(4,\)"),
        ({"pos_weight": torch.ones(5, 1)}, ValueError, "pos_weight must have shape"),
        ({"target": torch.tensor([0, 1, 2, 255])}, IndexError, "ignore_index=255"),
        ({"target": torch.zeros(4, 5, dtype=torch.bool)}, ValueError, r"use target.to\(logits.dtype\)"),
        ({"target": torch.full((4, 5), 1.5)}, ValueError, "1.5; probabilities are from 0 to 1"),
        ({"target": torch.full((4, 5), -0.1)}, ValueError, "probabilities are from 0 to 1"),
        (
            {"target": torch.zeros(4, 5), "label_smoothing": 0.1},
            ValueError,
            "label_smoothing needs class indices",
        ),
        ({"target": torch.zeros(4, 5), "ignore_index": 255}, ValueError, "ignore_index needs class indices"),
    ],
)
@pytest.mark.parametrize("detach", [True, False])
def test_what_is_refused(arguments, error, words, detach):
    given = {"logits": torch.zeros(4, 5), "target": torch.zeros(4, dtype=torch.int64), "detach": detach}
    with pytest.raises(error, match=words):
        anchor_loss(**{**given, **arguments})
