"""The networks against the formula of the paper, published parameter counts and the promises of `build`."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import models

EPSILON = 1e-5


@pytest.mark.parametrize(
    ("name", "shortcut", "parameters"),
    [
        ("resnet8", "A", 81_140),
        ("resnet20", "A", 275_572),
        ("resnet110", "A", 1_733_812),
        ("resnet110", "B", 1_736_564),
        ("resnet18", "B", 11_220_132),
        ("resnet34", "B", 21_328_292),
        ("resnet50", "B", 23_705_252),
    ],
)
def test_parameter_counts(name, shortcut, parameters):
    network = models.build(name, 100, shortcut)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "resolutions", "channels"),
    [
        ("resnet14", [32, 32, 16, 8], [16, 16, 32, 64]),
        ("resnet50", [32, 32, 16, 8, 4], [64, 256, 512, 1024, 2048]),
    ],
)
@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_stages_keep_then_halve_the_resolution_and_stay_channels_last(name, resolutions, channels, shortcut):
    network = models.build(name, 7, shortcut).eval().to(memory_format=torch.channels_last)
    features = network.stem(torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last))
    shapes = [features.shape[1:]]
    for block in network.blocks:
        features = block(features)
        shapes.append(features.shape[1:])
        assert features.is_contiguous(memory_format=torch.channels_last)
    assert list(dict.fromkeys(shape[1] for shape in shapes)) == list(dict.fromkeys(resolutions))
    assert list(dict.fromkeys(shape[0] for shape in shapes)) == list(dict.fromkeys(channels))
    assert network.classifier(features.mean((2, 3))).shape == (2, 7)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("resnet21", 10), ["resnet21", "resnet18", "6n+2"]),
        (("resnet2", 10), ["resnet2'", "6n+2"]),
        (("resnet08", 10), ["resnet08"]),
        (("resnet8", 10, "C"), ["'C'", "A, B"]),
        (("resnet8", 1), ["num_classes=1"]),
    ],
)
def test_wrong_arguments_name_the_choices(arguments, words):
    with pytest.raises(ValueError, match=re.escape(words[0])) as error:
        models.build(*arguments)
    assert all(word in str(error.value) for word in words)


def expected_resnet8(images, state, training):
    """He et al., section 4.2, for n = 1, from the tensors of a network by their names."""

    def layer(features, name, number, stride=1):
        weight = state[f"{name}.{number}.weight"]
        features = F.conv2d(features, weight, stride=stride, padding=weight.shape[2] // 2)
        name = f"{name}.{number + 1}"
        mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        if training:
            mean, variance = features.mean((0, 2, 3)), features.var((0, 2, 3), correction=0)
        scale = state[f"{name}.weight"] / torch.sqrt(variance + EPSILON)
        shift = state[f"{name}.bias"] - mean * scale
        return features * scale[:, None, None] + shift[:, None, None]

    features = layer(images, "stem", 0).relu()
    for number, (channels, stride) in enumerate([(16, 1), (32, 2), (64, 2)]):
        name = f"blocks.{number}"
        residual = layer(layer(features, f"{name}.residual", 0, stride).relu(), f"{name}.residual", 3)
        if f"{name}.shortcut.0.weight" in state:
            features = layer(features, f"{name}.shortcut", 0, stride)
        else:
            added = torch.zeros_like(residual)
            added[:, : features.shape[1]] = features[:, :, ::stride, ::stride]
            features = added
        assert residual.shape[1] == channels
        features = (residual + features).relu()
    return features.mean((2, 3)) @ state["classifier.weight"].T + state["classifier.bias"]


def set_by_hand(network):
    """Values from a formula, different everywhere: swapped channels, pixels or layers change the logits."""
    for number, (name, value) in enumerate(network.state_dict().items()):
        if value.is_floating_point():
            wave = torch.sin(
                torch.arange(value.numel(), dtype=torch.float64) * (0.7 + 0.01 * number) + number
            )
            positive = name.endswith("running_var") or (value.dim() == 1 and name.endswith("weight"))
            value.copy_((1 + 0.5 * wave if positive else 0.3 * wave).view(value.shape))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shortcut", ["A", "B"])
# An odd resolution too: the rows that a stride keeps are then told apart from those it skips.
@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 6)])
def test_forward_equals_the_papers_formula(shortcut, training, height, width):
    network = models.build("resnet8", 5, shortcut).double().train(training)
    set_by_hand(network)
    images = torch.cos(torch.arange(2 * 3 * height * width, dtype=torch.float64) * 0.37)
    images = images.view(2, 3, height, width)
    expected = expected_resnet8(images, {k: v.clone() for k, v in network.state_dict().items()}, training)
    torch.testing.assert_close(network(images), expected, rtol=1e-10, atol=1e-10)


def test_seed_alone_decides_the_initial_weights():
    def built(seed, device):
        torch.manual_seed(seed)
        with torch.device(device):  # the default device, which has no say
            return torch.nn.utils.parameters_to_vector(models.build("resnet8", 10, "B").parameters())

    assert torch.equal(built(3, "cpu"), built(3, "meta"))
    assert not torch.equal(built(3, "cpu"), built(4, "cpu"))


def test_convolutions_start_kaiming_normal_and_the_rest_as_documented():
    torch.manual_seed(0)
    network = models.build("resnet56", 100)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            draws = module.weight.detach().flatten() * (fan_out / 2) ** 0.5
            bound = 5 / len(draws) ** 0.5
            assert abs(draws.mean()) < bound
            assert abs(draws.var() - 1) < 2 * bound
            # A normal's fourth moment is 3; a uniform's would be 1.8.
            assert len(draws) < 5000 or draws.pow(4).mean() > 2.5
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
    weight = network.classifier.weight
    assert 0.99 / 8 < weight.abs().max() <= 1 / 8
    assert (network.classifier.bias == 0).all()


@pytest.mark.parametrize("classes", [10, 100])
def test_prior_bias_starts_the_scores_near_one_over_the_classes(classes):
    torch.manual_seed(0)
    network = models.build("resnet20", classes, prior_bias=True)
    pi = 1 / classes
    np.testing.assert_allclose(network.classifier.bias.detach(), -np.log((1 - pi) / pi), rtol=1e-6)
    mean = network(torch.randn(64, 3, 32, 32)).sigmoid().mean().item()
    assert 0.7 * pi < mean < 1.5 * pi


def test_forward_is_one_graph():
    network = models.build("resnet8", 10)
    images = torch.randn(2, 3, 32, 32)
    explained = torch._dynamo.explain(network)(images)
    assert explained.graph_count == 1
    assert explained.graph_break_count == 0
