"""What the device can do at best, measured as the loops are: matrix products, 3x3 convolutions, copies."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn import functional as F

from anchorloss.device import wait_for

# The network's own convolutions and a wide one; channels, pixels a side, at batch 128.
CONVOLUTIONS = ((16, 32), (32, 16), (64, 8), (256, 16))
COPIES = {"copy of 4 MiB": 4 << 20, "copy of 256 MiB": 256 << 20}


@dataclass(frozen=True)
class Ceiling:
    """`call` does `amount` operations or bytes; `unit` is what a second of them is called."""

    name: str
    unit: str
    amount: float
    call: Callable[[], object]


def ceilings(device: torch.device) -> list[Ceiling]:
    """What to measure, with the tensors made."""
    found: list[Ceiling] = []
    for dtype, name in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
        size = 2048 if device.type == "cpu" else 8192
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        found.append(Ceiling(f"matrix product {name}", "GFLOP/s", 2 * size**3, partial(torch.mm, a, b)))
        for channels, side in CONVOLUTIONS:
            inputs = torch.randn(128, channels, side, side, device=device, dtype=dtype)
            inputs = inputs.contiguous(memory_format=torch.channels_last)
            weight = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype)
            weight = weight.contiguous(memory_format=torch.channels_last)
            found.append(
                Ceiling(
                    f"3x3 convolution {name}, {channels} channels, {side}x{side}",
                    "GFLOP/s",
                    2 * 128 * side * side * channels * channels * 9,
                    partial(F.conv2d, inputs, weight, padding=1),
                )
            )
    for name, size in COPIES.items():
        source = torch.ones(size // 4, device=device)
        target = torch.empty_like(source)
        found.append(Ceiling(name, "GB/s", 2 * size, partial(target.copy_, source)))
    return found


@torch.no_grad()
def measure(ceiling: Ceiling, device: torch.device, seconds: float) -> float:
    """Units a second over `seconds` of repeated calls, in the ceiling's unit."""
    ceiling.call()
    wait_for(device)
    calls, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        ceiling.call()
        calls += 1
        # So that a GPU's queue does not run away from the clock.
        if calls % 16 == 0:
            wait_for(device)
    wait_for(device)
    taken = time.perf_counter() - start
    return ceiling.amount * calls / taken / 1e9
