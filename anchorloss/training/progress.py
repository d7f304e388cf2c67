"""What people see of a run while it trains: a progress bar on a terminal, and `progress.json`."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

from tqdm import tqdm

from anchorloss.config.identity import RunSettings
from anchorloss.runs.folder import Progress, write_progress
from anchorloss.training.state import RunState, now

BAR_SECONDS = 0.5
FILE_SECONDS = 2.0


class ProgressReporter:
    """Shows how far a run has come, from when it is made until its `bar` is closed.

    `state` is read at every `show`; `fraction` is the part of the current epoch that is done already.
    """

    def __init__(self, settings: RunSettings, folder: Path, state: RunState, fraction: float) -> None:
        self._folder = folder
        self._state = state
        self._epochs = settings.optim.epochs
        self._first = state.epoch + fraction
        self._begun = time.monotonic()
        self._shown = self._written = -math.inf
        self.bar = tqdm(
            total=self._epochs,
            initial=self._first,
            desc=f"{settings.loss.name} seed {settings.seed}",
            bar_format="{desc} |{bar}| {n:.1f}/{total} epoch" + "s" * (self._epochs != 1) + "{postfix}",
            leave=False,
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
            mininterval=0,
        )
        self.show(fraction)

    @property
    def seconds(self) -> float:
        """Training time of the run in seconds, over all its segments."""
        return self._state.seconds + time.monotonic() - self._begun

    @property
    def is_due(self) -> bool:
        """Whether `show` would show something new."""
        return time.monotonic() - self._shown >= BAR_SECONDS

    def show(self, fraction: float, train_loss: float | None = None) -> None:
        """Show the run's state: the part of the current epoch that is done, and its mean loss or the last epoch's."""
        history = self._state.history
        if train_loss is None and history:
            train_loss = history[-1]["train_loss"]
        top1 = next((row["top1"] for row in reversed(history) if row["top1"] is not None), None)
        done = self._state.epoch + fraction
        here = done - self._first
        seconds_left = (self._epochs - done) * (time.monotonic() - self._begun) / here if here > 0 else None
        interval = None if seconds_left is None else tqdm.format_interval(seconds_left)
        texts = {"loss {:.3f}": train_loss, "Top-1 {:.2f}": top1, "{}": interval}
        self.bar.n = done
        self.bar.set_postfix_str(
            ", ".join(text.format(value) for text, value in texts.items() if value is not None)
        )
        self._shown = time.monotonic()
        if self._shown - self._written >= FILE_SECONDS or fraction == 0:
            self._written = self._shown
            write_progress(
                self._folder,
                Progress(
                    epoch=self._state.epoch,
                    epochs=self._epochs,
                    train_loss=train_loss,
                    top1=top1,
                    seconds_left=seconds_left,
                    updated=now(),
                ),
            )
