"""Several runs on one device, each advanced by one step at a time.

On a CPU the runs share the cores, because one step of a small network does not keep two busy. A run's numbers depend on
its own number of threads alone. On a GPU the steps are only enqueued, so one Python thread serves all runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class SideBySide:
    """Calls a function on each of several runs, on a CPU with `threads` torch threads each.

    It keeps its Python threads, because torch's number of threads is a property of the Python thread that computes. The
    main thread does not compute on a CPU: it answers signals, which would otherwise wait for the end of a long step.
    """

    def __init__(self, device: torch.device, threads: int) -> None:
        self._pool = (
            ThreadPoolExecutor(
                max(1, cores() // threads), initializer=torch.set_num_threads, initargs=(threads,)
            )
            if device.type == "cpu"
            else None
        )

    def each(self, function: Callable[[Item], Outcome], items: Iterable[Item]) -> list[Outcome]:
        """The function's results in the items' order, once all calls have ended; raises what the first to fail raised."""
        if self._pool is None:
            return [function(item) for item in items]
        futures = [self._pool.submit(function, item) for item in items]
        wait(futures)
        return [future.result() for future in futures]
