"""The learning rate at each step."""

from __future__ import annotations

import math

from anchorloss.config.settings import OptimSettings


def learning_rate(optim: OptimSettings, epoch: int, step: int, steps: int) -> float:
    """The learning rate at `step` of the `steps` of `epoch`, both from 0.

    It follows a step or cosine schedule by epoch, times a linear warm-up by step.
    """
    if optim.schedule == "cosine":
        rate = optim.lr * 0.5 * (1 + math.cos(math.pi * epoch / optim.epochs))
    else:
        passed = sum(epoch >= round(fraction * optim.epochs) for fraction in optim.decay_at)
        rate = optim.lr / optim.decay_factor**passed
    warmup_steps = optim.lr_warmup_epochs * steps
    return rate * min(1.0, (epoch * steps + step + 1) / warmup_steps) if warmup_steps > 0 else rate
