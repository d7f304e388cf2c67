"""A loss or network of one's own: how it is built, and what is refused before a run starts."""

from __future__ import annotations

import math
import sys

import pytest
import torch

from anchorloss.config.settings import LossSettings
from anchorloss.errors import UserError
from anchorloss.training.build import build_network, check
from tests.in_process import settings
from tests.settings import model_settings

CODE = """
import torch
from torch import nn

value = 3
WEIGHTS = torch.linspace(1, 2, 100)
def balanced(logits, target):
    return nn.functional.cross_entropy(logits, target, weight=WEIGHTS)
def constant(logits, target):
    return logits.detach().sum()
def one_each(logits, target):
    return logits.sum(1)
def fails(logits, target):
    raise RuntimeError("two\\nlines")
def of_the_target_alone(logits, target):
    return target.float().requires_grad_().mean()
def steep(logits, target):
    return (logits - logits[0, 0]).square().sum().sqrt() + (logits[0, 0] - logits[0, 0].detach()).sqrt()

def flat(num_classes, bias=True):
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 4), nn.Linear(4, num_classes, bias=bias))
def convolutional(num_classes):
    return nn.Sequential(nn.Conv2d(3, num_classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
def normalised(num_classes):
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3072), nn.Linear(3072, num_classes))
def wrong_shape(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 7))
class Views(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.features = nn.Conv2d(3, 2, 5)
        self.head = nn.Linear(2 * 28 * 28, num_classes)
    def forward(self, images):
        return self.head(self.features(images).view(-1, 2 * 28 * 28))
def no_module(num_classes):
    return num_classes
def no_network(num_classes):
    raise RuntimeError("no")
"""


@pytest.fixture(autouse=True)
def code(tmp_path, monkeypatch):
    (tmp_path / "own_code.py").write_text(CODE)
    (tmp_path / "own_raises.py").write_text("1 / 0\n")
    (tmp_path / "own_exits.py").write_text("raise SystemExit(7)\n")
    (tmp_path / "own_needs.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_code", None)


RUN = settings()[0]


def with_loss(function: str, **arguments):
    loss = LossSettings.model_validate({"name": "mine", "function": function, **arguments})
    return RUN.model_copy(update={"loss": loss})


def with_network(name: str, prior_bias: bool = True, **arguments):
    model = model_settings(name, prior_bias=prior_bias, function=f"own_code.{name}", arguments=arguments)
    return RUN.model_copy(update={"model": model})


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (with_loss("own_code.nothing"), r"loss\.function=.*nothing"),
        (with_loss("own_code.value"), r"loss\.function=.*cannot be imported"),
        (with_loss("own_nowhere.loss"), r"loss\.function=.*own_nowhere"),
        (with_loss("own_raises.loss"), r"loss\.function=.*ZeroDivisionError: division by zero"),
        (with_loss("own_exits.loss"), r"loss\.function=.*SystemExit: 7"),
        (with_loss("own_needs.loss"), r"loss\.function=.*a_module_that_is_not_there"),
        (with_loss(".losses.constant"), r"loss\.function=.*not an import path"),
        (with_loss(".".join("a" * 300)), r"loss\.function=.*not an import path"),
        (with_loss("torch.relu"), "loss.*(no signature|fails with)"),
        (with_loss("own_code.constant"), "loss=mine.*must return the mean"),
        (with_loss("own_code.one_each"), "loss=mine.*must return the mean"),
        (with_loss("own_code.of_the_target_alone"), "loss=mine.*differentiable in the logits"),
        (with_loss("own_code.fails"), "loss=mine.*fails with"),
        (with_loss("own_code.steep"), "loss=mine.*not finite"),
        # It has a weight for each of 100 classes.
        (with_loss("own_code.balanced"), "loss=mine.*on 2 samples of 10 classes"),
        (
            with_loss("anchorloss.loss.anchor_loss", gama=1),
            r"loss\.gama=1: \S*\.anchor_loss takes gamma, anchor, ",
        ),
        (
            with_network("flat", bias=False),
            r"model\.prior_bias=true: the last layer of own_code\.flat has no bias",
        ),
        (with_network("flat", depth=3), r"model\.arguments\.depth=3: own_code\.flat takes bias$"),
        (with_network("wrong_shape", prior_bias=False), r"model\.function=.*must return logits"),
        (with_network("Views"), r"model\.function=.*fails on images .*flatten\(1\)"),
        (with_network("no_module"), r"model\.function=.*must return a torch\.nn\.Module"),
        (with_network("no_network"), r"model\.function=own_code\.no_network: fails with"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.loss.function[-40:],
)
def test_a_function_that_is_no_loss_or_makes_no_network(run, message):
    before = torch.get_rng_state()
    with pytest.raises(UserError, match=f"^{message}"):
        check(run, 10)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loss_is_tried_with_the_classes_that_there_are():
    check(with_loss("own_code.balanced"), 100)


@pytest.mark.parametrize("name", ["flat", "convolutional"])
def test_the_last_bias_starts_at_the_prior_whatever_it_is_called(name):
    network = build_network(with_network(name).model, 10)
    last = [parameter for key, parameter in network.named_parameters() if key.endswith("bias")][-1]
    torch.testing.assert_close(last, torch.full((10,), -math.log(9)))


def test_a_last_batch_of_one_image_is_refused_where_the_network_cannot_take_it():
    run = with_network("normalised")  # batches of 64
    check(run, 10, 64 + 2)
    check(with_network("flat"), 10, 64 + 1)
    with pytest.raises(
        UserError, match=r"^optim\.batch_size=64: leaves one of 65 .*own_code\.normalised fails"
    ):
        check(run, 10, 64 + 1)
