"""Where a step's time goes: our step on one CPU thread, by kind of operator."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.profiler import ProfilerActivity, profile

from anchorloss.benchmark.ladder import Variant, build_trainers
from anchorloss.benchmark.rows import Row

# The first kind whose word is in the operator's name; additions are the shortcuts and the gradients that meet there.
KINDS = {
    "convolution": ("conv",),
    "normalisation": ("batch_norm",),
    "ReLU": ("relu", "clamp_min", "threshold"),
    "addition": ("aten::add",),
}
REST = "all else (augmentation, loss, pooling, update, Python)"
STEPS, WARM = 3, 2


def measure_operators(variant: Variant, rounds: int) -> list[Row]:
    """Milliseconds of a step by kind of operator, forward and backward together, on one thread of this CPU."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        (trainer,) = build_trainers(variant, torch.device("cpu"))
        for _ in range(WARM):
            trainer.train_step()
        samples: dict[str, list[float]] = {kind: [] for kind in (*KINDS, REST)}
        for _ in range(rounds):
            with profile(activities=[ProfilerActivity.CPU]) as profiler:
                for _ in range(STEPS):
                    trainer.train_step()
            for kind in samples:
                samples[kind].append(0.0)
            for event in profiler.key_averages():
                samples[_kind(event.key)][-1] += event.self_cpu_time_total / 1000 / STEPS
    finally:
        torch.set_num_threads(threads)
    return [
        replace(variant, name=kind).row("operators", "time", "ms a step", found)
        for kind, found in samples.items()
    ]


def _kind(operator: str) -> str:
    return next((kind for kind, words in KINDS.items() if any(word in operator for word in words)), REST)
