"""The other losses against their formulas, written out in Python's floats, and against public implementations."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import pytest
import torch
import yaml
from torch import Tensor

from anchorloss import rivals
from anchorloss.config.identity import LossSettings
from anchorloss.data import cifar
from anchorloss.training import losses
from tests.conftest import ROOT
from tests.in_process import settings

NAMES = ("focal", "dual_focal", "poly1", "label_smoothing", "asl", "maxsup")


@cache
def configured(name: str) -> Callable[..., Tensor]:
    """The loss as its config names it."""
    (run,) = settings(f"loss={name}")
    return losses.resolve(run.loss).function


def batch(n: int = 7, classes: int = 5, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    logits = 3 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return logits.to(dtype).requires_grad_(), torch.randint(classes, (n,), generator=generator)


def softmax(z: list[float]) -> list[float]:
    exponentials = [math.exp(value - max(z)) for value in z]
    return [value / sum(exponentials) for value in exponentials]


def focal(z: list[float], y: int) -> float:
    total = 0.0
    for c, value in enumerate(z):
        p = 1 / (1 + math.exp(-value))
        right, alpha = (p, 0.25) if c == y else (1 - p, 0.75)
        total -= alpha * (1 - right) ** 2 * math.log(right)
    return total


def dual_focal(z: list[float], y: int) -> float:
    p = softmax(z)
    lower = max((value for value in p if value < p[y]), default=0.0)
    return -((1 - p[y] + lower) ** 6.1) * math.log(p[y])


def poly1(z: list[float], y: int) -> float:
    p = softmax(z)[y]
    return -math.log(p) + (1 - p)


def label_smoothing(z: list[float], y: int) -> float:
    return -sum((0.9 * (c == y) + 0.1 / len(z)) * math.log(p) for c, p in enumerate(softmax(z)))


def asl(z: list[float], y: int) -> float:
    p = softmax(z)
    return -sum(
        (0.9 * (c == y) + 0.1 / len(z)) * (1.0 if c == y else p[c] ** 4) * math.log(p[c])
        for c in range(len(z))
    )


def maxsup(z: list[float], y: int) -> float:
    return -math.log(softmax(z)[y]) + 0.1 * (max(z) - sum(z) / len(z))


FORMULAS = {
    function.__name__: function for function in (focal, dual_focal, poly1, label_smoothing, asl, maxsup)
}


@pytest.mark.parametrize("name", NAMES)
def test_the_formula(name):
    logits, target = batch()
    expected = [FORMULAS[name](z, y) for z, y in zip(logits.tolist(), target.tolist(), strict=True)]
    loss = configured(name)
    torch.testing.assert_close(
        loss(logits, target, reduction="none").tolist(), expected, rtol=1e-12, atol=1e-12
    )
    torch.testing.assert_close(loss(logits, target).item(), sum(expected) / len(expected))
    torch.testing.assert_close(loss(logits, target, reduction="sum").item(), sum(expected))


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient(name):
    logits, target = batch()
    assert torch.autograd.gradcheck(lambda z: configured(name)(z, target), (logits,))


@pytest.mark.parametrize("name", NAMES)
def test_pixels_are_samples(name):
    logits = torch.randn(2, 5, 3, 4)
    target = torch.randint(5, (2, 3, 4))
    losses_of_pixels = configured(name)(logits, target, reduction="none")
    flat = configured(name)(logits.movedim(1, -1).reshape(-1, 5), target.reshape(-1), reduction="none")
    torch.testing.assert_close(losses_of_pixels.reshape(-1), flat)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [80.0, 1e4])
def test_extreme_logits_give_finite_losses_and_gradients(name, size):
    logits = torch.tensor([[size, -size, 0.0], [-size, size, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    loss = configured(name)(logits, torch.tensor([0, 0, 1]))
    loss.backward()
    assert math.isfinite(loss.item())
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "label_smoothing"])
def test_half_precision_is_computed_in_float32(name):
    logits, target = batch(dtype=torch.bfloat16)
    loss = configured(name)(logits, target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, configured(name)(logits.float(), target))


def test_dual_focal_without_a_lower_score_is_focal():
    """Where the target has the lowest score there is no p_j."""
    logits, target = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([0])
    p = softmax([0.0, 1.0, 2.0])[0]
    assert float(rivals.dual_focal(logits, target, gamma=2.0)) == pytest.approx(-((1 - p) ** 2) * math.log(p))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_small_exponents_have_finite_gradients_at_certainty(gamma):
    target = torch.tensor([0, 1])
    for loss in (
        lambda z: rivals.focal(z, target, gamma=gamma),
        lambda z: rivals.dual_focal(z, target, gamma=gamma),
        lambda z: rivals.asl(z, target, gamma_positive=gamma, gamma_negative=gamma),
    ):
        logits = torch.tensor([[1e4, -1e4, 0.0], [1e4, -1e4, 0.0]], requires_grad=True)
        loss(logits).backward()
        assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    ("loss", "arguments"),
    [
        (rivals.focal, {"gamma": -1.0}),
        (rivals.focal, {"alpha": 1.5}),
        (rivals.dual_focal, {"gamma": -0.1}),
        (rivals.asl, {"gamma_negative": -1.0}),
        (rivals.asl, {"epsilon": 1.0}),
    ],
)
def test_an_argument_out_of_range_is_refused(loss, arguments):
    with pytest.raises(ValueError, match="must"):
        loss(*batch(), **arguments)


def test_an_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="reduction='average'"):
        rivals.poly1(*batch(), reduction="average")


def test_focal_is_torchvisions():
    cifar.torchvision_download()  # makes torchvision importable beside a CPU's torch
    from torchvision.ops import sigmoid_focal_loss

    logits, target = batch(20)
    one_hot = torch.nn.functional.one_hot(target, 5).double()
    expected = sigmoid_focal_loss(logits, one_hot).sum(1).mean()
    torch.testing.assert_close(rivals.focal(logits, target), expected)


def test_asl_and_label_smoothing_are_timms():
    cifar.torchvision_download()
    timm = pytest.importorskip("timm.loss")
    logits, target = batch(20)
    expected = timm.AsymmetricLossSingleLabel(gamma_pos=0, gamma_neg=4, eps=0.1)(logits, target)
    torch.testing.assert_close(rivals.asl(logits, target), expected)
    torch.testing.assert_close(
        configured("label_smoothing")(logits, target), timm.LabelSmoothingCrossEntropy(0.1)(logits, target)
    )


def test_scores_are_read_as_the_loss_reads_them():
    sigmoid = {
        name
        for name in (*NAMES, "bce", "softmax")
        if not losses.resolve(settings(f"loss={name}")[0].loss).uses_softmax
    }
    assert sigmoid == {"focal", "bce"}


def test_every_config_says_every_default():
    """A default that changes in the code must not change what a config trains."""
    import inspect

    for name in NAMES:
        config = yaml.safe_load((ROOT / "configs" / "loss" / f"{name}.yaml").read_text())
        function = losses.resolve(LossSettings(name, config["function"], {})).function.func
        if function.__module__ == "anchorloss.rivals":
            tunable = set(inspect.signature(function).parameters) - {"logits", "target", "reduction"}
            assert tunable == config.keys() - {"name", "function", "scores"}
