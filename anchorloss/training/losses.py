"""From a loss config to a function: `function` is a dotted path, the other keys are its arguments.

So a new loss is one config file and one function `f(logits, target, reduction="mean", **arguments)`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from anchorloss.config.settings import LossSettings
from anchorloss.errors import UserError

LossFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Loss:
    """A loss as configured: call it with `logits` (N, C) float and `target` (N,) int64 for the mean over the batch."""

    settings: LossSettings
    function: LossFunction

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.function(logits, target)

    @property
    def uses_softmax(self) -> bool:
        """Whether scores read as softmax probabilities rather than as independent sigmoids."""
        return self.settings.function == "torch.nn.functional.cross_entropy"


def resolve(loss: LossSettings) -> Loss:
    """The loss as a function of `logits` (N, C) float and `target` (N,) int64, giving the mean over the batch.

    It is tried on two samples here, so that a wrong argument is found before any run starts.

    Raises: UserError naming the key of the loss config that is wrong.
    """
    function = _import(loss.function)
    known = inspect.signature(function).parameters
    for key in loss.arguments:
        if key not in known:
            arguments = ", ".join(name for name in known if name not in ("logits", "target", "reduction"))
            raise UserError(f"loss.{key}={loss.arguments[key]}: {loss.function} takes {arguments}")
    configured = partial(function, **loss.arguments)
    try:
        value = configured(torch.zeros(2, 3), torch.tensor([0, 1]))
    except Exception as error:
        raise UserError(
            f"loss={loss.name}: {loss.function} refuses {dict(loss.arguments)}: {error}"
        ) from error
    if not isinstance(value, Tensor) or value.shape != ():
        raise UserError(
            f"loss={loss.name}: {loss.function} must return the mean over the batch, a tensor without axes"
        )
    return Loss(loss, configured)


def _import(path: str) -> Callable[..., Tensor]:
    module_name, _, name = path.rpartition(".")
    try:
        function = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"loss.function={path}: not found ({error}); give the path as package.module.function"
        ) from None
    if not callable(function):
        raise UserError(f"loss.function={path}: not a function")
    return function
