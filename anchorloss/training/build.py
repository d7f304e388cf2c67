"""From a config to a loss and a network: ours, or of one's own by import path, and what belongs to code of one's own.

A new loss is one config file and one function `f(logits, target, **arguments)`: docs/extending.md. A new network is
one config file and one function `f(num_classes, **arguments)`: docs/extending.md.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

import models
from anchorloss.config.own_code import check_arguments, import_function
from anchorloss.config.settings import LossSettings, ModelSettings, RunSettings
from anchorloss.errors import UserError, explain, is_about_memory

# From logits (N, C) float and targets (N,) int64 to the mean over the batch.
LossFunction = Callable[[Tensor, Tensor], Tensor]
_GENERATOR = threading.RLock()
_is_seeded = False  # by the thread that has the lock


def build_loss(loss: LossSettings) -> LossFunction:
    """Import a loss and bind its arguments. Raises: UserError if it is not there, or does not take them."""
    function = import_function("loss.function", loss.function)
    check_arguments("loss", loss.function, function, loss.arguments, own=("logits", "target", "reduction"))
    return partial(function, **loss.arguments)


def build_network(model: ModelSettings, classes: int) -> nn.Module:
    """Build a freshly initialised network on the CPU, in float32, from torch's global CPU generator.

    It maps images (N, 3, H, W) to logits (N, C), C = `classes`, at least 2. With `prior_bias` the last layer's bias
    starts at −log((1 − π) / π), π = 1 / C.

    Raises: UserError if `model.function` cannot be imported, does not take its arguments, fails, or returns no module.
    """
    if model.function is None:
        return models.build(model.name, classes, model.shortcut, model.prior_bias)
    function = import_function("model.function", model.function)
    check_arguments("model.arguments", model.function, function, model.arguments, own=("num_classes",))
    with _failing(f"model.function={model.function}: fails with {model.arguments}: "):
        network = function(classes, **model.arguments)
    if not isinstance(network, nn.Module):
        raise UserError(f"model.function={model.function}: must return a torch.nn.Module")
    if model.prior_bias:
        _start_at_prior(network, classes, model)
    return network


def _start_at_prior(network: nn.Module, classes: int, model: ModelSettings) -> None:
    """Set the bias of the last layer, which is the last linear or convolutional module with a bias for each class."""
    layers = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    last = layers[-1] if layers else None
    if last is None or last.bias is None or last.bias.shape != (classes,):
        raise UserError(
            f"model.prior_bias=true: the last layer of {model.function} has no bias for each class; "
            "set model.prior_bias=false"
        )
    nn.init.constant_(last.bias, -math.log(classes - 1))


@contextmanager
def _failing(text: str, remedy: str = "") -> Iterator[None]:
    """Say in one line what has failed."""
    try:
        yield
    except Exception as error:
        raise UserError(f"{text}{error}{remedy}") from error


def distinct_code(runs: Iterable[RunSettings]) -> Iterable[RunSettings]:
    """One run for each loss, network, data set and size of batch: those that are worth a `check`."""
    return {repr((run.loss, run.model, run.data, run.optim.batch_size)): run for run in runs}.values()


def check(settings: RunSettings, classes: int, images: int | None = None) -> None:
    """Try the run's loss, and its network if that is one's own, so that a mistake is found before any run starts.

    `classes` are those of the data set; `images`, if it is known, how many it has to train on.

    Raises: UserError if one cannot be built, fails, or does not return what it must; the message names its key.
    """
    with seeded(settings.seed):
        _check_loss(settings.loss, classes)
        if settings.model.function is not None:
            _check_network(settings, classes, images)


def _check_loss(settings: LossSettings, classes: int) -> None:
    loss = build_loss(settings)
    name, arguments = f"loss={settings.name}: {settings.function}", settings.arguments
    logits = torch.linspace(-1, 1, 2 * classes).view(2, classes).requires_grad_()
    gradient = None
    with _failing(f"{name} fails with {arguments} on 2 samples of {classes} classes: "):
        value = loss(logits, torch.tensor([0, 1]))
        if isinstance(value, Tensor) and value.shape == () and value.requires_grad:
            (gradient,) = torch.autograd.grad(value, logits, allow_unused=True)
    if gradient is None:
        raise UserError(
            f"{name} must return the mean over the batch, a tensor without dimensions, differentiable in the logits"
        )
    if not (torch.isfinite(value) and torch.isfinite(gradient).all()):
        raise UserError(
            f"{name} or its gradient is not finite with {arguments} for logits from -1 to 1; change an argument"
        )


@torch.no_grad()
def _check_network(settings: RunSettings, classes: int, images: int | None) -> None:
    """Try a network on two images, and in training mode on one if an epoch's last batch has no more."""
    name, batch_size = f"model.function={settings.model.function}", settings.optim.batch_size
    network = build_network(settings.model, classes).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pixels = torch.zeros(2, 3, 32, 32).to(memory_format=torch.channels_last)
    with _failing(
        f"{name}: its network fails on images (2, 3, 32, 32) in channels-last memory format, "
        "where flatten(1) works and view may not: "
    ):
        logits = network.eval()(pixels)
    if not isinstance(logits, Tensor) or logits.shape != (2, classes):
        raise UserError(f"{name}: its network must return logits (N, num_classes) for images (N, 3, 32, 32)")
    if images is not None and (images - 1) % batch_size == 0:
        text = (
            f"optim.batch_size={batch_size}: leaves one of {images} training images for an epoch's last batch, on which "
            f"the network of {name} fails ("
        )
        with _failing(text, "); choose another size"):
            network.train()(pixels[:1])


@contextmanager
def named_errors(settings: RunSettings) -> Iterator[None]:
    """Name run and function if a network or loss of one's own fails."""
    try:
        yield
    except Exception as error:
        loss, network = settings.loss, settings.model.function
        found = {"loss": loss.function if loss.source is not None else None, "model": network}
        own = " or ".join(f"{part}.function={path}" for part, path in found.items() if path is not None)
        if not own or isinstance(error, UserError) or is_about_memory(error):
            raise
        raise UserError(f"{settings.run}: {own} fails in training: {explain(error)[1]}") from error


@contextmanager
def seeded(seed: int, *step: int) -> Iterator[None]:
    """Seed torch's CPU generator by a run's seed, or by that with epoch and step, and restore it afterwards.

    The generator belongs to the process, so other threads wait. Inside of another `seeded` its numbers go on.
    """
    global _is_seeded
    with _GENERATOR:
        if _is_seeded:
            yield
            return
        number = np.random.SeedSequence((seed, *step)).generate_state(1, np.uint64)[0] if step else seed
        _is_seeded = True
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(number))
                yield
        finally:
            _is_seeded = False
