"""How much work a training step is: floating point operations and bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

import models


@dataclass(frozen=True)
class Work:
    """The work of one image in one step.

    `operations` are those of convolutions and matrix products, two for a multiply-add; `bytes` are what torch's operators
    read and write, each tensor once an operator.
    """

    operations: float
    bytes: float


def count_work(model: str, *, bf16: bool, images: int = 32) -> Work:
    """Count one forward and backward pass of `model` on the CPU, channels-last; `images` share the weights' traffic."""
    torch.manual_seed(0)
    network = models.build(model, 100)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    dtype = torch.bfloat16 if bf16 else torch.float32
    inputs = torch.randn(images, 3, 32, 32).to(dtype, memory_format=torch.channels_last)
    traffic = Traffic()
    with FlopCounterMode(display=False) as operations, traffic:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = network(inputs)
        logits.float().square().mean().backward()
    return Work(operations.get_total_flops() / images, traffic.bytes / images)


class Traffic(TorchDispatchMode):
    """Adds up the bytes of the tensors that operators read and write; views are free."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.bytes += _bytes((args, kwargs)) + _bytes(result)
        return result


def _bytes(values: Any) -> int:
    return sum(leaf.numel() * leaf.element_size() for leaf in tree_leaves(values) if isinstance(leaf, Tensor))
