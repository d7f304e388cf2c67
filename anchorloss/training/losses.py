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

    It is tried on two samples, so that a mistake is found before any run starts.

    Raises:
        UserError: the function cannot be imported, does not take the arguments, or does not return a mean with a
            gradient; the message names the key of the loss config.
    """
    function = import_function("loss.function", loss.function)
    check_arguments("loss", loss.function, function, loss.arguments, own=("logits", "target", "reduction"))
    configured = partial(function, **loss.arguments)
    try:
        value = configured(torch.zeros(2, 3, requires_grad=True), torch.tensor([0, 1]))
    except Exception as error:
        raise UserError(
            f"loss={loss.name}: {loss.function} fails with {dict(loss.arguments)}: {error}"
        ) from error
    if not isinstance(value, Tensor) or value.shape != () or not value.requires_grad:
        raise UserError(
            f"loss={loss.name}: {loss.function} must return the mean over the batch, a differentiable tensor without "
            "dimensions"
        )
    return Loss(loss, configured)
