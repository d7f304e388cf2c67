"""A network of one's own: how it starts, and what is refused."""

from __future__ import annotations

import math
import sys

import pytest
import torch

from anchorloss.config.identity import LossSettings, RunSettings
from anchorloss.config.settings import DataSettings, ModelSettings, OptimSettings
from anchorloss.errors import UserError
from anchorloss.training.build import build_network, check

CODE = """
from torch import nn

def flat(num_classes, bias=True):
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 4), nn.Linear(4, num_classes, bias=bias))

def convolutional(num_classes):
    last = nn.Conv2d(3, num_classes, 1)
    return nn.Sequential(last, nn.AdaptiveAvgPool2d(1), nn.Flatten())

def wrong_shape(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 7))

def grey_alone(num_classes):
    return nn.Conv2d(1, num_classes, 1)

class Views(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.features = nn.Conv2d(3, 2, 5)
        self.head = nn.Linear(2 * 28 * 28, num_classes)

    def forward(self, images):
        return self.head(self.features(images).view(-1, 2 * 28 * 28))

def no_module(num_classes):
    return num_classes

def fails(num_classes):
    raise RuntimeError("no")
"""


@pytest.fixture(autouse=True)
def code(tmp_path, monkeypatch):
    (tmp_path / "own_networks.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_networks", None)


def run_with(model: ModelSettings, **optim) -> RunSettings:
    loss = LossSettings("softmax", "torch.nn.functional.cross_entropy", {})
    return RunSettings("x", loss, model, DataSettings("synthetic"), OptimSettings(**optim), "fp32", 0)


def own(name: str, prior_bias: bool = True, **arguments) -> ModelSettings:
    return ModelSettings(name, prior_bias=prior_bias, function=f"own_networks.{name}", arguments=arguments)


@pytest.mark.parametrize("name", ["flat", "convolutional"])
def test_the_last_bias_starts_at_the_prior_whatever_it_is_called(name):
    network = build_network(own(name), 10)
    last = [parameter for key, parameter in network.named_parameters() if key.endswith("bias")][-1]
    torch.testing.assert_close(last.sigmoid(), torch.full((10,), 0.1))
    assert build_network(own(name, prior_bias=False), 10)(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_a_network_of_ours_starts_the_same_way():
    network = build_network(ModelSettings("resnet8", prior_bias=True), 100)
    torch.testing.assert_close(network.classifier.bias, torch.full((100,), -math.log(99)))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            own("flat", bias=False),
            r"model\.prior_bias=true: the last layer of own_networks\.flat has no bias",
        ),
        (own("flat", depth=3), r"model\.arguments\.depth=3: own_networks\.flat takes bias$"),
        (own("wrong_shape", prior_bias=False), "must return logits"),
        (own("grey_alone", prior_bias=False), r"fails on images \(2, 3, 32, 32\)"),
        (own("Views"), r"fails on images .*flatten\(1\)"),
        (own("no_module"), r"must return a torch\.nn\.Module"),
        (own("fails"), r"model\.function=own_networks\.fails: fails with"),
        (own("nothing"), r"model\.function=own_networks\.nothing: cannot be imported"),
    ],
)
def test_what_is_refused_before_a_run_starts(model, message):
    with pytest.raises(UserError, match=message):
        check(run_with(model), 10)


def test_the_check_leaves_the_generator_as_it_was():
    before = torch.get_rng_state()
    check(run_with(own("flat")), 10)
    assert torch.equal(torch.get_rng_state(), before)
