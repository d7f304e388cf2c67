"""How a network computes in a run's precision: bf16 by autocast, or float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch

from anchorloss.training import emulated_bf16


def input_dtype(precision: str) -> torch.dtype:
    """The dtype of a network's input: `precision` is "bf16" or "fp32"."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The context of a forward pass: autocast to bfloat16 for "bf16", nothing for "fp32"."""
    enabled = precision == "bf16"
    context = ExitStack()
    # The cache of cast weights would not survive a graph's replay.
    context.enter_context(torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=False))
    if enabled and emulated_bf16.is_needed(device):
        context.enter_context(emulated_bf16.EmulatedBf16())
    return context
