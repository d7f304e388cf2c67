"""What people see of a run while it trains: a progress bar on a terminal, and `progress.json`."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from anchorloss.config.settings import RunSettings
from anchorloss.runs.folder import Progress, write_progress

BAR_SECONDS = 0.5
FILE_SECONDS = 2.0


class ProgressReporter:
    """Shows how far a run has come, from when it is made until its `bar` is closed.

    `history` is the run's, read at every `show`; `done` are the epochs that are done already, as a fraction.
    """

    def __init__(
        self, settings: RunSettings, folder: Path, history: list[dict[str, Any]], done: float
    ) -> None:
        self._folder = folder
        self._history = history
        self._epochs = settings.optim.epochs
        self._first = done
        self._begun = time.monotonic()
        self._shown = self._written = -math.inf
        self.bar = tqdm(
            total=self._epochs,
            initial=done,
            desc=f"{settings.loss.name} seed {settings.seed}",
            bar_format="{desc} |{bar}| {n:.1f}/{total} epoch" + "s" * (self._epochs != 1) + "{postfix}",
            leave=False,
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
            mininterval=0,
        )
        self.show(done)

    @property
    def seconds(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self._begun

    @property
    def is_due(self) -> bool:
        """Whether `show` would show something new."""
        return time.monotonic() - self._shown >= BAR_SECONDS

    def show(self, done: float, train_loss: float | None = None) -> None:
        """Show the epochs that are done, as a fraction, and the mean loss of the present epoch or the last one's."""
        if train_loss is None and self._history:
            train_loss = self._history[-1]["train_loss"]
        top1 = next((row["top1"] for row in reversed(self._history) if row["top1"] is not None), None)
        here = done - self._first
        seconds_left = (self._epochs - done) * self.seconds / here if here > 0 else None
        interval = None if seconds_left is None else tqdm.format_interval(seconds_left)
        texts = {"loss {:.3f}": train_loss, "Top-1 {:.2f}": top1, "{}": interval}
        self.bar.n = done
        self.bar.set_postfix_str(
            ", ".join(text.format(value) for text, value in texts.items() if value is not None)
        )
        self._shown = time.monotonic()
        if self._shown - self._written >= FILE_SECONDS or done == int(done):
            self._written = self._shown
            write_progress(
                self._folder,
                Progress(
                    epoch=int(done),
                    epochs=self._epochs,
                    top1=top1,
                    seconds_left=seconds_left,
                ),
            )
