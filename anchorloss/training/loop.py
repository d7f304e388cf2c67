"""One run, from its settings to its record: epochs, evaluation, checkpoints, history, progress.

`train` is a generator that yields between steps: whoever drives it may take turns among several runs, and may stop at
any yield by closing it, which saves a checkpoint first.
"""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anchorloss.config.identity import RunSettings
from anchorloss.config.source import source_files
from anchorloss.device import describe
from anchorloss.errors import ClaimLostError, UserError
from anchorloss.runs import checkpoint, provenance, weights
from anchorloss.runs.files import sha256, write_atomically
from anchorloss.runs.folder import HISTORY, PREDICTIONS, PROGRESS, Record, write_record
from anchorloss.runs.record import WEIGHTS, Best, Data, Failure, Provenance
from anchorloss.tracking.tracker import Tracker
from anchorloss.training.context import RunContext
from anchorloss.training.evaluation import Evaluation, Prediction, measure
from anchorloss.training.progress import ProgressReporter
from anchorloss.training.state import RunState, now
from anchorloss.training.trainer import EpochTotals, Trainer

# How much work is enqueued on a GPU at a time, in seconds and in steps.
QUEUE_SECONDS = 1.0
MOST_STEPS = 256  # each is two launches, of which about a thousand fit into a stream's queue


def train(
    settings: RunSettings,
    folder: Path,
    context: RunContext,
    tracker: Tracker,
    require_claim: Callable[[], None] = lambda: None,
) -> Generator[float, None, Record]:
    """Train the run in `folder`, from its newest checkpoint if it has one, and write its record.

    Closing the generator saves a checkpoint.

    Args:
        settings: The run's settings.
        folder: The run's folder, which has its `config.yaml` already.
        context: The data on the device, and how to train there.
        tracker: Where the history goes beside the run's own files.
        require_claim: Called before anything is written; raises ClaimLostError once the run is another process's.

    Yields:
        How many epochs are done, as a fraction, whenever another run may have its turn.

    Returns:
        The record, which says `failed` if the loss was not finite.

    Raises:
        RunError: a file cannot be written, or `require_claim` raised it.
        UserError: the checkpoint is not of this run, or cannot be read.
    """
    trainer = Trainer(settings, context.training, context.device, compile=context.compile)
    state = _resume(folder, settings, trainer)
    run = _Run(settings, folder, context, trainer, state)
    segment = provenance.segment(describe(context.device), context.compile)
    if state.segments[-1:] != [segment]:
        state.segments.append(segment)
    steps, epochs = trainer.steps, settings.optim.epochs
    predict = Prediction(trainer.network, context.evaluation, settings.precision, trainer.stream)
    queue = _Queue(trainer)
    progress = ProgressReporter(settings, folder, state, trainer.step_in_epoch / steps)
    with progress.bar, tracker:

        def save() -> None:
            require_claim()
            content = {"trainer": trainer.state(), **state.to_checkpoint(progress.seconds)}
            checkpoint.save(folder, settings.hash, content)

        saved = time.monotonic()
        try:
            while state.epoch < epochs:
                while trainer.step_in_epoch < steps:
                    queue.fill()
                    while not queue.is_done:
                        yield state.epoch + queue.first / steps
                    if progress.is_due:
                        require_claim()
                        progress.show(trainer.step_in_epoch / steps, trainer.totals().train_loss)
                    if time.monotonic() - saved >= context.checkpoint_seconds:
                        save()
                        saved = time.monotonic()
                    yield state.epoch + trainer.step_in_epoch / steps
                run.totals = trainer.totals()
                if run.totals.failed_step is not None:
                    break
                logits = predict() if run.is_evaluation_due else None
                # Other runs go on while a GPU evaluates this one.
                while not trainer.is_idle:
                    yield state.epoch + 1.0
                run.last = run.end_epoch(logits, run.totals)
                if run.last is not None and not math.isfinite(run.last.loss):
                    break
                state.epoch += 1
                if state.epoch < epochs:
                    trainer.start_epoch(state.epoch)
                require_claim()
                run.write_history()
                progress.show(0)
                tracker.log(state.history[-1])
        except GeneratorExit:
            save()
            raise
        finally:
            # Its memory must not be given to another run while the device still writes to it.
            trainer.wait()
        require_claim()
        record = run.conclude(progress.seconds)
    checkpoint.remove(folder)
    (folder / PROGRESS).unlink(missing_ok=True)
    tracker.finish(record, folder)
    return record


class _Queue:
    """The steps that are enqueued on the device and not done yet; on a CPU, one that is done at once.

    About `QUEUE_SECONDS` of steps are enqueued at a time, and no more before they are done: enough to keep a GPU busy
    while the host serves other runs, and so few that a run can be stopped within seconds.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._length = 1
        self._begun = 0.0
        self.first = 0

    def fill(self) -> None:
        """Enqueue the next steps of the epoch, from step `first` on."""
        self._begun = time.monotonic()
        self.first = self._trainer.step_in_epoch
        for _ in range(min(self._length, self._trainer.steps - self.first)):
            self._trainer.train_step()

    @property
    def is_done(self) -> bool:
        """Whether all of them are done, without waiting for it."""
        if not self._trainer.is_idle:
            return False
        if self._trainer.device.type == "cuda":
            steps = self._trainer.step_in_epoch - self.first
            if steps == self._length:  # the last ones of an epoch may be fewer
                growth = QUEUE_SECONDS / max(time.monotonic() - self._begun, QUEUE_SECONDS / 2)
                self._length = min(max(int(steps * growth), 1), MOST_STEPS)
        return True


def _resume(folder: Path, settings: RunSettings, trainer: Trainer) -> RunState:
    """The run's state, with the trainer in it: that of its newest checkpoint, else that of a new run."""
    found = checkpoint.load(folder, settings.hash)
    if found is None:
        trainer.start_epoch(0)
        return RunState()
    try:
        state = RunState.from_checkpoint(found, settings.optim.epochs)
        step = found["trainer"]["step_in_epoch"]
        if type(step) is not int or not 0 <= step <= trainer.steps:
            raise ValueError(f"step_in_epoch is {step!a:.60} of {trainer.steps}")
        trainer.restore(found["trainer"], state.epoch)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        problem = " ".join(str(error).split())[:100]
        raise UserError(
            f"{folder}: its checkpoint is whole but not of such a run ({problem}); move it away to start this run anew"
        ) from error
    return state


@dataclass
class _Run:
    """A run that is trained here, the totals of its newest epoch, and that epoch's evaluation if it was due."""

    settings: RunSettings
    folder: Path
    context: RunContext
    trainer: Trainer
    state: RunState
    totals: EpochTotals | None = None
    last: Evaluation | None = None

    @property
    def is_evaluation_due(self) -> bool:
        """Whether the settings say to evaluate after the present epoch."""
        optim, done = self.settings.optim, self.state.epoch + 1
        return done % optim.evaluate_every == 0 or done == optim.epochs

    def end_epoch(self, logits: Tensor | None, totals: EpochTotals) -> Evaluation | None:
        """Measure the logits of the evaluation images, if there are any, and add the epoch's row to the history."""
        evaluation = None
        if logits is not None:
            with self.trainer.own_generator():
                evaluation = measure(logits, self.trainer.loss, self.context.evaluation.labels)
        row = {
            "epoch": self.state.epoch + 1,
            "learning_rate": self.trainer.current_learning_rate,
            "train_loss": totals.train_loss,
            "train_top1": totals.train_top1,
            "test_loss": evaluation.loss if evaluation else None,
            "top1": evaluation.top1 if evaluation else None,
            "top5": evaluation.top5 if evaluation else None,
            **(evaluation.factors if evaluation else {}),
        }
        self.state.history.append(row)
        return evaluation

    def conclude(self, seconds: float) -> Record:
        """Write history, predictions, weights if they are kept and, last, the record.

        It says `failed` if the run did not reach its last epoch.
        """
        files: dict[str, str] = {}

        def write(name: str, content: bytes) -> None:
            write_atomically(self.folder / name, content)
            files[name] = sha256(content)

        if self.state.history:
            files[HISTORY] = sha256(self.write_history())
        common: Any = {"data": self._data(), "files": files, "provenance": self._provenance(seconds)}
        # One that no record names may be left of a process that was to keep weights and was killed.
        (self.folder / WEIGHTS).unlink(missing_ok=True)
        last = self.last
        if self.state.epoch == self.settings.optim.epochs and last is not None:
            write(PREDICTIONS, last.predictions())
            if self.context.keep_weights:
                write(WEIGHTS, weights.to_bytes(self.trainer.network_state()))
            evaluated = (row for row in self.state.history if row["top1"] is not None)
            row = max(evaluated, key=lambda row: row["top1"])
            best = Best(epoch=row["epoch"], top1=row["top1"], top5=row["top5"])
            record = Record.finished(
                self.settings, top1=last.top1, top5=last.top5, test_loss=last.loss, best=best, **common
            )
        else:
            record = Record.failed(self.settings, failure=self._failure(), **common)
        try:
            write_record(self.folder, record)
        except FileExistsError:
            raise ClaimLostError(
                f"{self.folder.name}: another process has ended this run meanwhile"
            ) from None
        return record

    def write_history(self) -> bytes:
        """Write history.csv, and return its content."""
        text = io.StringIO()
        columns = list(dict.fromkeys(key for row in self.state.history for key in row))
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.state.history)
        content = text.getvalue().encode()
        write_atomically(self.folder / HISTORY, content)
        return content

    def _data(self) -> Data:
        dataset = self.context.dataset
        return Data(
            name=dataset.name,
            label=dataset.label,
            checksum=dataset.checksum,
            training_images=len(dataset.train_labels),
            evaluation_images=len(dataset.evaluation_labels),
            **({"class_names": list(dataset.class_names)} if self.settings.data.function else {}),
        )

    def _provenance(self, seconds: float) -> Provenance:
        state, device = self.state, self.context.device
        commit, dirty = provenance.commit(*source_files(self.settings.functions))
        return Provenance(
            commit=commit,
            dirty=dirty,
            versions=provenance.versions(),
            device=describe(device),
            host=provenance.host(),
            precision=self.settings.precision,
            started=state.started,
            finished=now(),
            duration_seconds=round(seconds, 3),
            resumed=state.resumed,
            compile=self.context.compile,
            earlier={str(number): text for number, text in enumerate(state.segments[:-1], 1)} or None,
            threads=torch.get_num_threads() if device.type == "cpu" else None,
        )

    def _failure(self) -> Failure:
        history, totals = self.state.history, self.totals
        if totals is not None and totals.failed_step is not None:
            last_finite_loss = totals.last_finite_loss
            # A first step that fails has its last finite loss, the mean of an epoch, in the epoch before.
            if last_finite_loss is None and history:
                last_finite_loss = history[-1]["train_loss"]
            epoch, step, reason = self.state.epoch + 1, totals.failed_step, "non-finite loss"
        else:
            row = history.pop()
            epoch, step, reason = row["epoch"], -1, "non-finite loss on the evaluation set"
            last_finite_loss = row["train_loss"]
        return Failure(epoch=epoch, step=step, reason=reason, last_finite_loss=last_finite_loss)
