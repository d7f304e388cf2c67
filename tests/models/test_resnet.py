"""The networks against plain loops, published parameter counts and the promises of `build`."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

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


# --- One forward pass by plain loops ----------------------------------------------------------------------------------


def looped_convolution(images, weight, stride):
    """Cross-correlation with zero padding of half the kernel; (N, c, H, W) and (d, c, k, k) in float64."""
    size = weight.shape[2]
    half = size // 2
    count, _, height, width = images.shape
    out = np.zeros((count, weight.shape[0], -(-height // stride), -(-width // stride)))
    for row in range(out.shape[2]):
        for column in range(out.shape[3]):
            for i in range(size):
                for j in range(size):
                    y, x = row * stride + i - half, column * stride + j - half
                    if 0 <= y < height and 0 <= x < width:
                        for output in range(out.shape[1]):
                            out[:, output, row, column] += images[:, :, y, x] @ weight[output, :, i, j]
    return out


def looped_normalisation(images, state, name, training):
    out = np.empty_like(images)
    for channel in range(images.shape[1]):
        values = images[:, channel]
        mean, variance = state[f"{name}.running_mean"][channel], state[f"{name}.running_var"][channel]
        if training:
            mean = values.sum() / values.size
            variance = ((values - mean) ** 2).sum() / values.size
        scale = state[f"{name}.weight"][channel] / np.sqrt(variance + EPSILON)
        out[:, channel] = (values - mean) * scale + state[f"{name}.bias"][channel]
    return out


def looped_shortcut(images, state, name, new_channels, stride, training):
    if images.shape[1] == new_channels:
        return images
    if f"{name}.0.weight" in state:
        return looped_normalisation(
            looped_convolution(images, state[f"{name}.0.weight"], stride), state, f"{name}.1", training
        )
    out = np.zeros(
        (images.shape[0], new_channels, -(-images.shape[2] // stride), -(-images.shape[3] // stride))
    )
    for row in range(out.shape[2]):
        for column in range(out.shape[3]):
            out[:, : images.shape[1], row, column] = images[:, :, row * stride, column * stride]
    return out


def looped_resnet8(images, state, training):
    """He et al., section 4.2, for n = 1."""
    features = looped_convolution(images, state["stem.0.weight"], 1)
    features = np.maximum(looped_normalisation(features, state, "stem.1", training), 0)
    for block, (channels, stride) in enumerate([(16, 1), (32, 2), (64, 2)]):
        name = f"blocks.{block}"
        residual = looped_convolution(features, state[f"{name}.residual.0.weight"], stride)
        residual = np.maximum(looped_normalisation(residual, state, f"{name}.residual.1", training), 0)
        residual = looped_convolution(residual, state[f"{name}.residual.3.weight"], 1)
        residual = looped_normalisation(residual, state, f"{name}.residual.4", training)
        shortcut = looped_shortcut(features, state, f"{name}.shortcut", channels, stride, training)
        features = np.maximum(residual + shortcut, 0)
    logits = np.empty((len(images), len(state["classifier.bias"])))
    for image in range(len(images)):
        pooled = [features[image, channel].sum() / features[image, channel].size for channel in range(64)]
        for label, weights in enumerate(state["classifier.weight"]):
            products = [weight * value for weight, value in zip(weights, pooled, strict=True)]
            logits[image, label] = sum(products) + state["classifier.bias"][label]
    return logits


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
def test_forward_equals_plain_loops(shortcut, training, height, width):
    network = models.build("resnet8", 5, shortcut).double().train(training)
    set_by_hand(network)
    images = torch.cos(torch.arange(2 * 3 * height * width, dtype=torch.float64) * 0.37)
    images = images.view(2, 3, height, width)
    state = {name: value.clone().numpy() for name, value in network.state_dict().items()}
    expected = looped_resnet8(images.numpy(), state, training)
    np.testing.assert_allclose(network(images).detach().numpy(), expected, rtol=1e-10, atol=1e-10)


# --- Initialisation ---------------------------------------------------------------------------------------------------


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


# --- The ways the trainer runs it -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "shortcut"), [("resnet20", "A"), ("resnet18", "B")])
def test_channels_last_and_bfloat16_change_no_more_than_rounding(name, shortcut):
    torch.manual_seed(0)
    network = models.build(name, 10, shortcut)
    images = torch.randn(8, 3, 32, 32)

    def run(*, bfloat16=False):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = network(images)
        logits.double().square().mean().backward()
        gradient = torch.cat([parameter.grad.double().flatten() for parameter in network.parameters()])
        return logits.detach().double(), gradient

    network.double()
    images = images.double()
    logits, gradient = run()
    network.to(memory_format=torch.channels_last)
    images = images.to(memory_format=torch.channels_last)
    last_logits, last_gradient = run()
    network.float()
    images = images.float()
    near_logits, near_gradient = run(bfloat16=True)

    assert (logits - last_logits).norm() < 1e-12 * logits.norm()
    assert (gradient - last_gradient).norm() < 1e-10 * gradient.norm()
    # bfloat16 rounds to 8 bits; through 20 layers and their batch statistics that turns some ReLUs over.
    assert (logits - near_logits).norm() < 0.05 * logits.norm()
    assert torch.cosine_similarity(gradient, near_gradient, dim=0) > 0.95


def test_forward_is_one_graph():
    network = models.build("resnet8", 10)
    images = torch.randn(2, 3, 32, 32)
    explained = torch._dynamo.explain(network)(images)
    assert explained.graph_count == 1
    assert explained.graph_break_count == 0
