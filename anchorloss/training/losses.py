"""From a loss config to a function: `function` is an import path, the other keys are its arguments.

A new loss is one config file and one function `f(logits, target, **arguments)`: docs/adding-a-loss.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from anchorloss.config.functions import check_arguments, import_function
from anchorloss.config.identity import LossSettings
from anchorloss.errors import UserError


@dataclass(frozen=True)
class Loss:
    """A loss as configured: call it with `logits` (N, C) float and `target` (N,) int64 for the mean over the batch."""

    settings: LossSettings
    function: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.function(logits, target)

    @property
    def uses_softmax(self) -> bool:
        """Whether scores read as softmax probabilities rather than as independent sigmoids."""
        if self.settings.scores is not None:
            return self.settings.scores == "softmax"
        return self.settings.function == "torch.nn.functional.cross_entropy"


def resolve(loss: LossSettings) -> Loss:
    """Import a loss and bind its arguments.

    It is tried on two samples of three classes, so that a mistake is found before any run starts.

    Raises:
        UserError: the function cannot be imported, does not take the arguments, or does not return a finite mean with a
            finite gradient in the logits; the message names the key of the loss config.
    """
    function = import_function("loss.function", loss.function)
    check_arguments("loss", loss.function, function, loss.arguments, own=("logits", "target", "reduction"))
    configured = partial(function, **loss.arguments)
    logits = torch.linspace(-1, 1, 6).view(2, 3).requires_grad_()
    gradient = None
    try:
        value = configured(logits, torch.tensor([0, 1]))
        if isinstance(value, Tensor) and value.shape == () and value.requires_grad:
            (gradient,) = torch.autograd.grad(value, logits, allow_unused=True)
    except Exception as error:
        raise UserError(
            f"loss={loss.name}: {loss.function} fails with {dict(loss.arguments)} on 2 samples of 3 classes: {error}"
        ) from error
    if gradient is None:
        raise UserError(
            f"loss={loss.name}: {loss.function} must return the mean over the batch, a tensor without dimensions that "
            "is differentiable in the logits"
        )
    if not (torch.isfinite(value) and torch.isfinite(gradient).all()):
        raise UserError(
            f"loss={loss.name}: {loss.function} or its gradient is not finite with {dict(loss.arguments)} for logits "
            "from -1 to 1; change an argument or the function"
        )
    return Loss(loss, configured)
