"""Shapes and targets of every kind: dense, probabilities, masks, ignored samples, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from anchorloss.loss import anchor_loss, modulation
from tests.loss.cases import ANCHORS, POS_WEIGHT, WEIGHT, loss_and_gradient, sample

PROBABILITIES = (
    (0.0, 0.0, 1.0, 0.0, 0.0),  # one-hot
    (0.3, 0.0, 0.0, 0.7, 0.0),  # mixup
    (1.0, 0.0, 1.0, 1.0, 0.0),  # multi-hot
    (0.0, 0.0, 0.0, 0.0, 0.0),  # no positive
    (1.0, 1.0, 1.0, 1.0, 1.0),  # no background
    (0.2, 0.9, 0.4, 0.1, 1.0),  # no background, soft
)
WEIGHTS = {"weight": torch.tensor(WEIGHT), "pos_weight": torch.tensor(POS_WEIGHT)}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.uint16, torch.int32, torch.int64])
def test_class_indices_are_their_one_hot_vectors(dtype):
    logits, target = sample()
    ours = loss_and_gradient(logits, target.to(dtype), anchor="both", **WEIGHTS)
    one_hot = loss_and_gradient(logits, F.one_hot(target, 5).double(), anchor="both", **WEIGHTS)
    torch.testing.assert_close(ours, one_hot, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 5, 3, 4), (7, 5, 2, 2)])
def test_dense_predictions_are_samples(anchor, shape):
    generator = torch.Generator().manual_seed(2)
    logits = 3 * torch.randn(*shape, generator=generator, dtype=torch.float64)
    logits.view(-1)[::7] *= 40  # beyond 80, too
    target = torch.randint(5, shape[:1] + shape[2:], generator=generator)
    target[0, 0] = 255
    p = torch.rand(*shape, generator=generator, dtype=torch.float64)
    p, mask = p.where(p > 0.5, 0.0), torch.rand(shape, generator=generator) > 0.3

    def rows(tensor):
        return tensor.movedim(1, -1).reshape(-1, 5) if tensor.shape == shape else tensor.flatten()

    for labels, arguments in ((target, {"ignore_index": 255, **WEIGHTS}), (p, {"pos_weight": 3.0})):
        for reduction in ("none", "mean"):
            arguments |= {"anchor": anchor, "slack": 0.05, "reduction": reduction}
            loss, gradient = loss_and_gradient(logits, labels, mask=mask, **arguments)
            expected, slope = loss_and_gradient(rows(logits), rows(labels), mask=rows(mask), **arguments)
            torch.testing.assert_close(loss.flatten(), expected.flatten(), rtol=1e-12, atol=1e-300)
            torch.testing.assert_close(rows(gradient), slope, rtol=1e-11, atol=1e-16)
            strided = loss_and_gradient(logits.mT.contiguous().mT, labels, mask=mask, **arguments)
            torch.testing.assert_close(strided, (loss, gradient), rtol=1e-12, atol=1e-15)
    factors = modulation(logits, target, anchor=anchor, ignore_index=255)
    flat = modulation(rows(logits), target.flatten(), anchor=anchor, ignore_index=255)
    for ours, expected in zip(factors, flat, strict=True):
        torch.testing.assert_close(rows(ours), expected)
    assert (factors[0][0, 0] == 1).all()
    assert (factors[1][0, :, 0] == 1).all()


def test_one_sample_without_a_batch_axis():
    logits, target = sample(1)
    loss, gradient = loss_and_gradient(logits[0], target[0], anchor="both")
    row, row_gradient = loss_and_gradient(logits, target, anchor="both")
    assert loss.shape == ()
    torch.testing.assert_close((loss, gradient), (row, row_gradient[0]))
    assert [factor.shape for factor in modulation(logits[0], target[0])] == [(), (5,)]


@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("arguments", [{}, {"label_smoothing": 0.1, "weight": torch.tensor(WEIGHT)}])
def test_what_is_left_out_counts_for_nothing(anchor, detach, arguments):
    """Ignored samples, and those in which a mask leaves no class."""
    logits, target = sample(8)
    out = torch.tensor([True, False, False, True, False, False, True, False])
    logits[0, 1] = torch.nan  # what is left out may hold anything
    logits[3] = torch.inf
    arguments = {**arguments, "anchor": anchor, "detach": detach}
    for reduction in ("none", "sum", "mean"):
        expected, slope = loss_and_gradient(logits[~out], target[~out], reduction=reduction, **arguments)
        for labels, how in (
            (target.masked_fill(out, 255), {"ignore_index": 255}),
            (target, {"mask": ~out[:, None]}),
        ):
            loss, gradient = loss_and_gradient(logits, labels, reduction=reduction, **how, **arguments)
            if reduction == "none":
                assert (loss[out] == 0).all()
                loss = loss[~out]
            torch.testing.assert_close(loss, expected, rtol=1e-14, atol=1e-15)
            torch.testing.assert_close(gradient[~out], slope, rtol=1e-14, atol=1e-15)
            assert (gradient[out] == 0).all()
    loss, gradient = loss_and_gradient(logits, torch.full_like(target, -100), anchor=anchor, detach=detach)
    assert loss == 0
    assert (gradient == 0).all()
    assert loss_and_gradient(logits[:0], target[:0], anchor=anchor)[0] == 0


@pytest.mark.parametrize("anchor", ANCHORS)
def test_masked_classes_might_as_well_not_be_there(anchor):
    """Unknown labels, here the last two classes, whatever logits and target hold there."""
    logits, _ = sample(4)
    p = torch.tensor(PROBABILITIES[:4], dtype=torch.float64)
    arguments = {"anchor": anchor, "reduction": "none", "pos_weight": 3.0}
    expected, slope = loss_and_gradient(logits[:, :3], p[:, :3], **arguments)
    logits[:, 3:], p[:, 3:] = torch.nan, -1.0
    mask = torch.tensor([True, True, True, False, False])
    loss, gradient = loss_and_gradient(logits, p, mask=mask, **arguments)
    torch.testing.assert_close(loss, expected, rtol=1e-14, atol=0)
    torch.testing.assert_close(gradient, torch.cat([slope, torch.zeros(4, 2)], 1), rtol=1e-14, atol=0)


def test_a_threshold_restores_the_anchors_of_smoothed_probabilities():
    logits, target = sample()
    smoothed = F.one_hot(target, 5).double() * 0.9 + 0.02
    for anchor in ANCHORS:
        ours = loss_and_gradient(logits, smoothed, anchor=anchor, positive_threshold=0.05)
        indices = loss_and_gradient(logits, target, anchor=anchor, label_smoothing=0.1)
        torch.testing.assert_close(ours, indices, rtol=1e-13, atol=1e-15)
        if anchor != "none":
            with pytest.raises(ValueError, match=r"p from 0\.02 to 0\.92.*pass positive_threshold"):
                anchor_loss(logits, smoothed, anchor=anchor)
    anchor_loss(logits, torch.ones(4, 5))  # multi-hot: all are positives, and meant to be
    anchor_loss(logits, smoothed, gamma=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("detach", [True, False])
def test_extremes_are_finite(dtype, anchor, detach):
    values = (1e4, -1e4, 104.0, -104.0, 80.5, -89.0, -0.0)
    logits = torch.cartesian_prod(*[torch.tensor(values)] * 2).to(dtype)[::3]
    logits = torch.cat([logits, logits.flip(1), logits[:, :1]], 1)
    indices = torch.arange(len(logits)) % 5
    indices[::6] = -100
    cases = [(indices, {}), (indices, {"label_smoothing": 0.1}), (indices, WEIGHTS)]
    cases += [(torch.tensor(p, dtype=dtype).expand(len(logits), 5), WEIGHTS) for p in PROBABILITIES]
    cases += [(indices, {"mask": torch.arange(len(logits) * 5).view(-1, 5) % 3 > 0})]
    for target, arguments in cases:
        for slack, gamma in ((0.0, 0.01), (0.05, 2.0)):
            common = {"gamma": gamma, "anchor": anchor, "detach": detach, "slack": slack}
            loss, gradient = loss_and_gradient(logits, target, reduction="none", **common, **arguments)
            assert loss.isfinite().all()
            assert gradient.isfinite().all()


def test_gradients_reach_a_target_and_weights_that_are_learned():
    """As with binary_cross_entropy_with_logits."""
    logits, _ = sample(2)
    p = torch.tensor(PROBABILITIES[1:3], dtype=torch.float64).clamp(0.1, 0.9).requires_grad_()
    weight = torch.tensor(WEIGHT, dtype=torch.float64, requires_grad=True)

    def loss(logits, p, weight):
        return anchor_loss(logits, p, anchor="both", weight=weight, pos_weight=weight, positive_threshold=0.2)

    assert torch.autograd.gradcheck(loss, (logits, p, weight))
    with torch.no_grad():
        assert not anchor_loss(logits, p, weight=weight, positive_threshold=0.2).requires_grad


FLOATS = torch.zeros(4, 5)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"gamma": -0.5}, ValueError, "gamma must be .* not -0.5"),
        ({"gamma_background": float("inf")}, ValueError, "gamma must be"),
        ({"anchor": "bg"}, ValueError, "anchor must be one of none, target, background, both, not 'bg'"),
        ({"reduction": "average"}, ValueError, "reduction must be one of none, mean, sum, not 'average'"),
        ({"slack": 1.5}, ValueError, "slack must be from 0 to 1, not 1.5"),
        ({"label_smoothing": -0.1}, ValueError, "label_smoothing must be from 0 to 1"),
        ({"positive_threshold": 2.0}, ValueError, "positive_threshold must be from 0 to 1"),
        ({"weight": torch.ones(4)}, ValueError, r"weight must have shape \(5,\), .* not \(4,\)"),
        ({"pos_weight": torch.ones(5, 1)}, ValueError, "pos_weight must have shape"),
        ({"mask": torch.ones(4, 5)}, TypeError, "mask must be bool, True where a class counts"),
        ({"mask": torch.ones(4, 4, dtype=torch.bool)}, RuntimeError, "size"),
        ({"target": torch.zeros(3, dtype=torch.int64)}, ValueError, r"target must be \(4,\)"),
        ({"target": torch.zeros(4, 5, dtype=torch.int64)}, ValueError, r"use target\.to\(logits\.dtype\)"),
        ({"target": torch.zeros(4)}, TypeError, r"use target\.long\(\)"),
        ({"target": torch.zeros(4, dtype=torch.bool)}, TypeError, r"use target\.long\(\)"),
        ({"logits": torch.zeros(4, 5, dtype=torch.int64)}, TypeError, "floating point"),
        ({"logits": torch.zeros(4, 1)}, ValueError, "two classes"),
        ({"logits": torch.zeros(())}, ValueError, "target must be"),
        ({"logits": torch.zeros(2, 4, 5), "target": torch.zeros(2, 4).long()}, ValueError, "movedim"),
        ({"logits": torch.zeros(4), "target": torch.zeros(4)}, ValueError, r"unsqueeze\(0\).*yes or no"),
        ({"target": torch.tensor([0, 1, 2, 255])}, IndexError, "out of bounds .* ignore_index=255"),
        ({"target": torch.tensor([0, 1, 2, -1])}, IndexError, "out of bounds"),
        ({"target": FLOATS + 1.5}, ValueError, "1.5; probabilities are from 0 to 1"),
        ({"target": FLOATS * torch.nan}, ValueError, "probabilities are from 0 to 1"),
        ({"target": FLOATS + 0.2}, ValueError, "positive_threshold"),
        ({"target": FLOATS, "label_smoothing": 0.1}, ValueError, "label_smoothing needs class indices"),
        ({"target": FLOATS, "ignore_index": 255}, ValueError, "ignore_index needs class indices"),
    ],
)
def test_what_is_refused(arguments, error, words):
    given = {"logits": torch.zeros(4, 5), "target": torch.zeros(4, dtype=torch.int64)}
    with pytest.raises(error, match=words):
        anchor_loss(**{**given, **arguments})
    with pytest.raises(TypeError, match="probabilities"):
        modulation(torch.zeros(4, 5), FLOATS)
