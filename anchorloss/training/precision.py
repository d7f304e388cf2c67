"""How a network computes in a run's precision: float32, or bfloat16 by autocast.

A processor without bfloat16 instructions emulates them. A native kernel multiplies bfloat16 inputs, sums in float32 and
rounds the sum to bfloat16; here float32 kernels do the same, because torch would fall back to its reference
convolution, which is slower than float32.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Forward = Callable[[Tensor], Tensor]


def input_dtype(precision: str) -> torch.dtype:
    """The dtype of a network's input: `precision` is "bf16" or "fp32"."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def forward_pass(
    network: nn.Module, device: torch.device, precision: str, *, compile: bool = False
) -> Forward:
    """The network's forward pass in `precision`, "bf16" or "fp32"; `compile` compiles it for one size of batch.

    From images (N, 3, H, W) of `input_dtype(precision)` to float32 logits (N, C), whatever the float32 parameters and the
    training mode of the network are at that time.
    """
    module: Forward = torch.compile(network, dynamic=False) if compile else network
    is_bf16 = precision == "bf16"
    emulation = EmulatedBf16 if is_bf16 and needs_emulation(device) else nullcontext

    def forward(images: Tensor) -> Tensor:
        # The cache of cast weights would not survive a graph's replay.
        with torch.autocast(device.type, torch.bfloat16, is_bf16, cache_enabled=False), emulation():
            return module(images).float()

    return forward


def needs_emulation(device: torch.device) -> bool:
    """Whether torch has no bfloat16 kernels for this device and would use its reference implementation."""
    if device.type != "cpu":
        return False
    return not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


class EmulatedBf16(TorchFunctionMode):
    """While active, `conv2d` and `linear` compute on the CPU as autocast to bfloat16 would, on float32 kernels.

    Gradients are rounded to bfloat16 in the same places: where a gradient leaves an operator.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in (torch.conv2d, nn.functional.linear):
            return func(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            result = func(*map(_rounded, args), **{key: _rounded(value) for key, value in kwargs.items()})
        return result.to(torch.bfloat16)


def _rounded(argument: Any) -> Any:
    return argument.to(torch.bfloat16).float() if isinstance(argument, Tensor) else argument
