"""Losses and networks of one's own in a training step: what they draw, and what they raise."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from anchorloss.config.identity import RunSettings
from anchorloss.errors import UserError, explain, is_about_memory
from anchorloss.training import losses, networks

_GENERATOR = threading.Lock()


@contextmanager
def generator(*place: int) -> Iterator[None]:
    """Seed torch's CPU generator by `place`, as (seed, epoch, step), and restore it afterwards.

    The generator belongs to the process, so other threads wait.
    """
    with _GENERATOR, torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]))
        yield


def draws_random_numbers(settings: RunSettings, loss: losses.Loss, classes: int) -> bool:
    """Return whether a training step draws from torch's generator; True for code of one's own that cannot be tried."""
    if not _functions(settings):
        return False
    try:
        network = networks.build(settings.model, classes).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        before = torch.get_rng_state()
        images = torch.zeros(2, 3, 32, 32).to(memory_format=torch.channels_last)
        with torch.no_grad():
            loss(network.train()(images), torch.tensor([0, 1]))
    except Exception:  # its first step will say what is wrong, if anything is
        return True
    return not torch.equal(before, torch.get_rng_state())


@contextmanager
def named_errors(settings: RunSettings) -> Iterator[None]:
    """Name run and function if a network or loss of one's own fails."""
    try:
        yield
    except Exception as error:
        own = " or ".join(f"{part}.function={path}" for part, path in _functions(settings).items())
        if not own or isinstance(error, UserError) or is_about_memory(error):
            raise
        raise UserError(f"{settings.run}: {own} fails in training: {explain(error)[1]}") from error


def _functions(settings: RunSettings) -> dict[str, str]:
    """The import paths of the run's loss and network, as far as they are one's own."""
    loss, network = settings.loss, settings.model.function
    found = {"loss": loss.function if loss.source is not None else None, "model": network}
    return {part: path for part, path in found.items() if path is not None}
