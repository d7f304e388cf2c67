"""From a model config to a network: one of `models/`, or that of a function named by its import path.

A new network is one config file and one function `f(num_classes, **arguments)`: docs/adding-a-network-or-data-set.md.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

import models
from anchorloss.config.functions import check_arguments, import_function
from anchorloss.config.settings import ModelSettings
from anchorloss.errors import UserError


def build(model: ModelSettings, num_classes: int) -> nn.Module:
    """Build a freshly initialised network on the CPU, in float32, from torch's global CPU generator.

    Args:
        model: its settings; with `prior_bias` the last layer's bias starts at −log((1 − π) / π), π = 1 / num_classes.
        num_classes: C, at least 2.

    Returns:
        A module from images (N, 3, H, W) to logits (N, C).

    Raises:
        UserError: `model.function` cannot be imported, does not take `model.arguments`, fails, or returns no module.
    """
    if model.function is None:
        return models.build(model.name, num_classes, model.shortcut, model.prior_bias)
    function = import_function("model.function", model.function)
    check_arguments("model.arguments", model.function, function, model.arguments, own=("num_classes",))
    try:
        network = function(num_classes, **model.arguments)
    except Exception as error:
        raise UserError(f"model.function={model.function}: fails with {model.arguments}: {error}") from error
    if not isinstance(network, nn.Module):
        raise UserError(f"model.function={model.function}: must return a torch.nn.Module")
    if model.prior_bias:
        _start_at_prior(network, num_classes, model)
    return network


def check(model: ModelSettings) -> None:
    """Try a network of one's own on two images, channels-last as in training, so that a mistake is found before any run.

    Raises:
        UserError: as `build`, or the network does not return logits (2, 10) for two images and ten classes.
    """
    if model.function is None:
        return
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        network = build(model, 10).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        try:
            logits = network(torch.zeros(2, 3, 32, 32).to(memory_format=torch.channels_last))
        except Exception as error:
            remedy = "; flatten with flatten(1) or reshape" if "view size" in str(error) else ""
            raise UserError(
                f"model.function={model.function}: its network fails on images (2, 3, 32, 32) in channels-last memory "
                f"format: {' '.join(str(error).split())}{remedy}"
            ) from error
    if not isinstance(logits, Tensor) or logits.shape != (2, 10):
        raise UserError(
            f"model.function={model.function}: its network must return logits (N, num_classes) for images (N, 3, 32, 32)"
        )


def _start_at_prior(network: nn.Module, num_classes: int, model: ModelSettings) -> None:
    """Set the bias of the last layer, which is the last linear or convolutional module with a bias for each class."""
    layers = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    last = layers[-1] if layers else None
    if last is None or last.bias is None or last.bias.shape != (num_classes,):
        raise UserError(
            f"model.prior_bias=true: the last layer of {model.function} has no bias for each class; "
            "set model.prior_bias=false"
        )
    nn.init.constant_(last.bias, -math.log(num_classes - 1))
