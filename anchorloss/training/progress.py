"""How far a run has come: its story, which goes into checkpoints, and what people see of it while it runs."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from anchorloss.config.settings import RunSettings
from anchorloss.runs import store
from anchorloss.training.trainer import Trainer

PROGRESS_SECONDS = 2.0


def now() -> str:
    """The time of day as records write it: ISO, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class Story:
    """What has happened to a run so far; goes into its checkpoints."""

    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    resumed: int = 0
    started: str = field(default_factory=now)
    # What trained each stretch, as `provenance.stretch` says it, where it changed at a resume.
    stretches: list[str] = field(default_factory=list)


class Watch:
    """The run's progress bar, its clock, and its `progress.json`."""

    def __init__(self, settings: RunSettings, folder: Path, story: Story, trainer: Trainer) -> None:
        self._folder = folder
        self._story = story
        self._trainer = trainer
        self._epochs = settings.optim.epochs
        self._steps = self._epochs * trainer.steps
        done = story.epoch * trainer.steps + trainer.step_in_epoch
        self._first = done
        self._bar = tqdm(
            total=self._steps,
            initial=done,
            desc=f"{settings.loss.name} {settings.model.name} seed {settings.seed}",
            unit=" images",
            unit_scale=settings.optim.batch_size,
            dynamic_ncols=True,
            mininterval=0.5,
        )
        self._begun = time.monotonic()
        self._written = -math.inf

    def __enter__(self) -> Watch:
        self._show()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    @property
    def seconds(self) -> float:
        """Training time of the run, over all its stretches."""
        return self._story.seconds + time.monotonic() - self._begun

    def step(self) -> None:
        """One more step is done."""
        self._bar.update()
        if time.monotonic() - self._written >= PROGRESS_SECONDS:
            self._show()

    def epoch(self) -> None:
        """One more epoch is in the story."""
        self._show()

    def _show(self) -> None:
        row = self._story.history[-1] if self._story.history else {}
        evaluated = [past["top1"] for past in self._story.history if past["top1"] is not None]
        shown = {"epoch": f"{min(self._story.epoch + 1, self._epochs)}/{self._epochs}"}
        if row:
            shown["loss"] = f"{row['train_loss']:.3f}"
        if evaluated:
            shown["top1"] = f"{evaluated[-1]:.2f}"
        self._bar.set_postfix(shown, refresh=False)
        done = self._bar.n - self._first
        left = (self._steps - self._bar.n) * (time.monotonic() - self._begun) / done if done else None
        self._written = time.monotonic()
        store.write_progress(
            self._folder,
            store.Progress(
                epoch=self._story.epoch,
                epochs=self._epochs,
                train_loss=row.get("train_loss"),
                top1=evaluated[-1] if evaluated else None,
                seconds_left=left,
                updated=now(),
            ),
        )
