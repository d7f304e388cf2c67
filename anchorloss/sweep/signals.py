"""What Ctrl-C, `kill` and a batch system's warning do: they are noted, and the sweep stops between two steps."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any


class Signals:
    """Notes SIGINT, SIGTERM and a batch system's SIGUSR2 in `received`; use it in a `with` statement.

    An earlier handler (submitit's, which requeues the job) is called by `pass_on`, once the checkpoints are saved.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._earlier: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> Signals:
        for name in ("SIGINT", "SIGTERM", "SIGUSR2"):
            number = getattr(signal, name, None)
            if number is not None and (name != "SIGUSR2" or callable(signal.getsignal(number))):
                self._earlier[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def sleep(self, seconds: float) -> None:
        """Wait so long, or until a signal comes."""
        end = time.monotonic() + seconds
        while self.received is None and time.monotonic() < end:
            time.sleep(0.05)

    def pass_on(self) -> None:
        """Call the earlier handler of the signal; without one, exit with status 128 + its number."""
        assert self.received is not None
        earlier = self._earlier[self.received]
        if callable(earlier) and earlier is not signal.default_int_handler:
            earlier(self.received, None)
        raise SystemExit(128 + self.received)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self.received = number
