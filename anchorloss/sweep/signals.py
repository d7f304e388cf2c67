"""What Ctrl-C, `kill`, a lost connection and a batch system's warning do: they are noted, and the work stops in order."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")


class Signals:
    """Notes what would end this process in `received`, and says so at once; use it in a `with` statement.

    What is ignored, as SIGHUP under `nohup`, stays ignored. An earlier handler (submitit's, which requeues the job) is
    called by `pass_on`, once everything is saved.
    """

    def __init__(self, answer: str) -> None:
        """`answer` is written to stderr when the first signal comes."""
        self.received: int | None = None
        self._answer = answer
        self._earlier: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> Signals:
        for name in NAMES:
            number = getattr(signal, name, None)  # Windows has the first two
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                self._earlier[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def sleep(self, seconds: float) -> None:
        """Wait so long, or until a signal comes."""
        end = time.monotonic() + seconds
        while self.received is None and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))

    def pass_on(self) -> None:
        """Call the earlier handler of the signal; without one, exit with status 128 + its number."""
        assert self.received is not None
        earlier = self._earlier[self.received]
        if callable(earlier) and earlier is not signal.default_int_handler:
            earlier(self.received, None)
        raise SystemExit(128 + self.received)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self.received is None:
            # Python's own stream may be in the middle of another line, and would refuse.
            with contextlib.suppress(OSError):
                os.write(2, f"\n{self._answer}\n".encode())
        self.received = number
