"""bfloat16 convolutions and matrix products on a processor without instructions for them.

A native kernel multiplies bfloat16 inputs, sums in float32 and rounds the sum to bfloat16. Here float32 kernels do the
same, because torch would fall back to its reference convolution, which is slower than float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_OPERATORS = (torch.conv2d, torch.nn.functional.linear)


def is_needed(device: torch.device) -> bool:
    """Whether torch has no bfloat16 kernels for this device and would use its reference implementation."""
    if device.type != "cpu":
        return False
    return not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


class EmulatedBf16(TorchFunctionMode):
    """While active, `conv2d` and `linear` compute on the CPU as autocast to bfloat16 would, on float32 kernels.

    Gradients are rounded to bfloat16 in the same places: where a gradient leaves an operator.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func not in _OPERATORS:
            return func(*args, **(kwargs or {}))
        with torch.autocast("cpu", enabled=False):
            result = func(
                *map(_rounded, args), **{key: _rounded(value) for key, value in (kwargs or {}).items()}
            )
        return result.to(torch.bfloat16)


def _rounded(argument: Any) -> Any:
    return argument.to(torch.bfloat16).float() if isinstance(argument, Tensor) else argument
