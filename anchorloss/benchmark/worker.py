"""One training loop in a process of its own, which takes some steps when asked to.

So loops that differ in threads, allocator and compiled code can be measured in turns, each as if it were alone.
"""

from __future__ import annotations

import math
import multiprocessing
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import torch

from anchorloss.benchmark.ladder import Variant, build_loop
from anchorloss.device import peak_memory, wait_for
from anchorloss.errors import RunError


class Worker:
    """A variant's process, until it is closed.

    It is ended at `start_deadline`, in seconds of `time.monotonic()`, if it has not done its first step by then.
    """

    def __init__(self, variant: Variant, start_deadline: float = math.inf) -> None:
        self.variant = variant
        context = multiprocessing.get_context("spawn")
        self._connection, its_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(its_end, variant))
        self._process.start()
        its_end.close()
        left = start_deadline - time.monotonic()
        answers = self._connection.poll(None if left == math.inf else max(left, 0))
        # From the data in memory to the end of the first step; and the batches that its loader may have ready.
        self.first_step_seconds: float
        self.prefetched: int
        self.first_step_seconds, self.prefetched = math.nan, 0
        self.has_died = False
        if answers:
            try:
                self.first_step_seconds, self.prefetched = self._receive()
            except RunError:
                self.has_died = True
        self.has_started = answers and not self.has_died

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        if self.has_started:
            self._process.join(10)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()

    def seconds(self, warm: int, steps: int) -> float:
        """Wall seconds of `steps` steps, after `warm` steps that are not counted.

        Raises:
            RunError: the process died.
        """
        self._connection.send((warm, steps))
        return self._receive()

    def memory(self) -> float:
        """The largest memory so far in MiB: resident on a CPU, reserved by torch on a GPU."""
        self._connection.send("memory")
        return self._receive()

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except EOFError:
            raise RunError(
                f"{self.variant.name} of {self.variant.model}: its process died; see above"
            ) from None


def _serve(connection: Connection, variant: Variant) -> None:
    with suppress(KeyboardInterrupt):  # the process that measures reports it
        _answer(connection, variant)


def _answer(connection: Connection, variant: Variant) -> None:
    start = time.perf_counter()
    loop = build_loop(variant)
    loop.steps(1)
    wait_for(torch.device(variant.device))
    connection.send((time.perf_counter() - start, loop.prefetched))
    while True:
        try:
            asked = connection.recv()
        except EOFError:
            return
        if asked == "memory":
            connection.send(peak_memory(torch.device(variant.device)) / 2**20 or math.nan)
            continue
        warm, steps = asked
        loop.steps(warm)
        wait_for(torch.device(variant.device))
        start = time.perf_counter()
        loop.steps(steps)
        wait_for(torch.device(variant.device))
        connection.send(time.perf_counter() - start)
