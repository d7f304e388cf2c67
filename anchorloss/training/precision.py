"""How a network computes in a run's precision: bf16 by autocast, or float32."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from anchorloss.training import emulated_bf16

# Of the modules that autocast computes in bfloat16, those whose parameters nothing else reads.
_CAST_MODULES = (nn.Conv2d, nn.Linear)

Forward = Callable[[Tensor], Tensor]


def input_dtype(precision: str) -> torch.dtype:
    """The dtype of a network's input: `precision` is "bf16" or "fp32"."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def forward_pass(
    network: nn.Module, device: torch.device, precision: str, *, compile: bool = False
) -> Forward:
    """The network's forward pass in `precision`.

    In bf16 the weights of convolutions and linear layers are cast together, which gives the numbers of autocast in
    two kernels where autocast takes one a weight. So a network must not read such a weight outside of its module.

    Args:
        network: maps images (N, 3, H, W) to logits (N, C); its parameters are float32.
        device: where it is.
        precision: "bf16" or "fp32".
        compile: compile it for one size of batch with torch.compile.

    Returns:
        A function from images of `input_dtype(precision)` to float32 logits. It follows the network's parameters and
        its training mode as they change.
    """
    if precision == "fp32":
        module: Forward = torch.compile(network, dynamic=False) if compile else network
        return lambda images: module(images).float()

    parameters = {
        f"{prefix}.{name}" if prefix else name: parameter
        for prefix, module in network.named_modules()
        if type(module) in _CAST_MODULES
        for name, parameter in module.named_parameters(recurse=False)
    }

    def call(weights: dict[str, Tensor], images: Tensor) -> Tensor:
        return torch.func.functional_call(network, weights, (images,))

    emulation = emulated_bf16.EmulatedBf16 if emulated_bf16.is_needed(device) else nullcontext
    compiled = torch.compile(call, dynamic=False) if compile else call

    def forward(images: Tensor) -> Tensor:
        weights = dict(zip(parameters, _CastTogether.apply(*parameters.values()), strict=True))
        # The cache of cast weights would not survive a graph's replay.
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False), emulation():
            return compiled(weights, images).float()

    return forward


class _CastTogether(torch.autograd.Function):
    """float32 tensors to bfloat16, and their gradients back, each by one call."""

    @staticmethod
    def forward(context: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        context.set_materialize_grads(False)
        return tuple(_cast(tensors, torch.bfloat16))

    @staticmethod
    def backward(context: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        cast = iter(_cast([gradient for gradient in gradients if gradient is not None], torch.float32))
        return tuple(None if gradient is None else next(cast) for gradient in gradients)


def _cast(tensors: Iterable[Tensor], dtype: torch.dtype) -> list[Tensor]:
    tensors = list(tensors)
    result = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    torch._foreach_copy_(result, tensors)
    return result
