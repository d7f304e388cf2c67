"""One run, from its settings to its record: epochs, evaluation, checkpoints, history, and what is seen meanwhile.

`train` is a generator that yields between steps: whoever drives it may take turns among several runs, and may stop at
any yield by closing it, which saves a checkpoint first.
"""

from __future__ import annotations

import csv
import io
import math
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from anchorloss.config.own_code import source_files
from anchorloss.config.settings import Execution, RunSettings
from anchorloss.device import describe
from anchorloss.errors import ClaimLostError, UserError
from anchorloss.runs import checkpoint, provenance, weights
from anchorloss.runs.files import sha256, write_atomically
from anchorloss.runs.folder import (
    HISTORY,
    PREDICTIONS,
    Progress,
    Record,
    remove_leftovers,
    write_progress,
    write_record,
)
from anchorloss.runs.record import WEIGHTS, Best, Data, Failure, Provenance
from anchorloss.tracking import Logger
from anchorloss.training.device_data import DeviceData
from anchorloss.training.evaluation import Evaluation, measure, predict
from anchorloss.training.schedule import learning_rate
from anchorloss.training.trainer import EpochTotals, Trainer

# Steps enqueued on a GPU at a time: enough to keep it busy while the host serves other runs.
STEPS_AHEAD = 4
# How often progress bar and progress.json are brought up to date within an epoch.
SHOW_SECONDS = 1.0


@dataclass
class RunState:
    """How far a run has come: what its checkpoints hold beside the trainer's state.

    A segment is what one process trained between two resumes.

    Attributes:
        epoch: How many epochs are done.
        history: A row for each of them.
        seconds: Training time of all earlier segments.
        resumed: How often the run was resumed.
        started: When it began, as `provenance.now`.
        segments: What trained it, as `provenance.segment`, where that changed.
    """

    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    resumed: int = 0
    started: str = field(default_factory=provenance.now)
    segments: list[str] = field(default_factory=list)


def train(
    settings: RunSettings,
    folder: Path,
    data: DeviceData,
    execution: Execution,
    logger: Logger,
    require_claim: Callable[[], None] = lambda: None,
) -> Generator[float, None, Record]:
    """Train the run in `folder`, from its newest checkpoint if it has one, and write its record.

    `folder` has the run's `config.yaml`, `data` is on the device that trains. Before anything is written `require_claim`
    is called; it raises ClaimLostError once the run is another process's. Closing the generator saves a checkpoint.

    Yields:
        How many epochs are done, as a fraction, whenever another run may have its turn.

    Returns:
        The record, which says `failed` if the loss was not finite.

    Raises:
        RunError: a file cannot be written, or `require_claim` raised it.
        UserError: the checkpoint is not of this run, or cannot be read.
    """
    trainer = Trainer(settings, data, compile=execution.compile)
    state = _resume(settings, folder, trainer)
    segment = provenance.segment(describe(data.device), execution.compile)
    if state.segments[-1:] != [segment]:
        state.segments.append(segment)
    run = _Run(settings, folder, data, execution, logger, require_claim, trainer, state)
    run.show()
    with run.bar, logger:
        try:
            while run.failure is None and state.epoch < settings.optim.epochs:
                if trainer.step_in_epoch < trainer.steps:
                    yield from run.take_steps()
                    run.look()
                    yield run.epochs_done
                else:
                    yield from run.end_epoch()
        except GeneratorExit:
            run.save()
            raise
        finally:
            # Its memory must not be given to another run while the device still writes to it.
            trainer.wait()
        record = run.conclude()
    remove_leftovers(folder)
    logger.finish(folder)
    return record


@dataclass
class _Run:
    """A run that is trained here: its state, where it is written and shown, and how it ended."""

    settings: RunSettings
    folder: Path
    data: DeviceData
    execution: Execution
    logger: Logger
    require_claim: Callable[[], None]
    trainer: Trainer
    state: RunState
    evaluation: Evaluation | None = None
    failure: Failure | None = None

    def __post_init__(self) -> None:
        self.begun = self.saved = self.shown = time.monotonic()
        self.first = self.epochs_done
        epochs = self.settings.optim.epochs
        self.bar = tqdm(
            total=epochs,
            initial=self.first,
            desc=f"{self.settings.loss.name} seed {self.settings.seed}",
            bar_format="{desc} |{bar}| {n:.1f}/{total} epoch" + "s" * (epochs != 1) + "{postfix}",
            leave=False,
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
        )

    @property
    def epochs_done(self) -> float:
        """As a fraction, with the steps that are enqueued."""
        return self.state.epoch + self.trainer.step_in_epoch / self.trainer.steps

    @property
    def seconds(self) -> float:
        """Training time of all segments so far."""
        return self.state.seconds + time.monotonic() - self.begun

    def take_steps(self) -> Generator[float]:
        """Take a step of the epoch, or on a GPU some, and yield while they are not done."""
        done, trainer = self.epochs_done, self.trainer
        ahead = STEPS_AHEAD if self.data.device.type == "cuda" else 1
        for _ in range(min(ahead, trainer.steps - trainer.step_in_epoch)):
            trainer.train_step()
        while not trainer.is_idle:
            yield done

    def look(self) -> None:
        """Show how far the run is, and save a checkpoint, each if it is due."""
        now = time.monotonic()
        if now - self.shown >= SHOW_SECONDS:
            self.require_claim()
            self.show(self._totals().train_loss)
        if now - self.saved >= self.execution.checkpoint_seconds:
            self.save()

    def show(self, train_loss: float | None = None) -> None:
        """Show how far the run is, with the mean loss of this epoch, or of the last one, and the newest Top-1."""
        self.shown = time.monotonic()
        history, epochs, done = self.state.history, self.settings.optim.epochs, self.epochs_done
        if train_loss is None and history:
            train_loss = history[-1]["train_loss"]
        top1 = next((row["top1"] for row in reversed(history) if row["top1"] is not None), None)
        here = done - self.first
        seconds_left = (epochs - done) * (self.shown - self.begun) / here if here > 0 else None
        interval = None if seconds_left is None else tqdm.format_interval(seconds_left)
        texts = {"loss {:.3f}": train_loss, "Top-1 {:.2f}": top1, "{}": interval}
        self.bar.n = done
        self.bar.set_postfix_str(
            ", ".join(text.format(value) for text, value in texts.items() if value is not None)
        )
        write_progress(
            self.folder, Progress(epoch=int(done), epochs=epochs, top1=top1, seconds_left=seconds_left)
        )

    def save(self) -> None:
        """Save a checkpoint."""
        self.require_claim()
        content = {"trainer": self.trainer.state(), **vars(self.state), "seconds": self.seconds}
        checkpoint.save(self.folder, self.settings.hash, content)
        self.saved = time.monotonic()

    def end_epoch(self) -> Generator[float]:
        """What comes after an epoch's last step: evaluate if that is due, add to the history, begin the next epoch.

        Yields while a GPU evaluates, so that other runs go on.
        """
        state, trainer, optim = self.state, self.trainer, self.settings.optim
        totals, epoch, evaluation = self._totals(), state.epoch + 1, None
        if self.failure is not None:
            return
        if epoch % optim.evaluate_every == 0 or epoch == optim.epochs:
            logits = predict(trainer.network, self.data, self.settings.precision, trainer.stream)
            while not trainer.is_idle:
                yield self.epochs_done
            target = self.data.evaluation_labels
            evaluation = self.evaluation = measure(logits, target, self.settings.loss, trainer.loss)
        row = {
            "epoch": epoch,
            "learning_rate": learning_rate(optim, state.epoch, trainer.steps - 1, trainer.steps),
            "train_loss": totals.train_loss,
            "train_top1": totals.train_top1,
            "test_loss": evaluation.loss if evaluation else None,
            "top1": evaluation.top1 if evaluation else None,
            "top5": evaluation.top5 if evaluation else None,
            **(evaluation.factors if evaluation else {}),
        }
        state.history.append(row)
        if evaluation is not None and not math.isfinite(evaluation.loss):
            self._fail(-1, "non-finite loss on the evaluation set", totals.train_loss)
            return
        state.epoch = epoch
        trainer.start_epoch(epoch)
        self._write(HISTORY, _csv(state.history))
        self.show()
        self.logger.log(row)

    def conclude(self) -> Record:
        """Write history, predictions, weights if they are kept and, last, the record."""
        history, files = self.state.history, {}
        # One that no record names may be left of a process that was to keep weights and was killed.
        self.require_claim()
        (self.folder / WEIGHTS).unlink(missing_ok=True)
        if history:
            files[HISTORY] = self._write(HISTORY, _csv(history))
        if self.failure is not None:
            outcome: dict[str, Any] = {"failure": self.failure}
        else:
            last = self.evaluation
            assert last is not None  # the last epoch is always evaluated
            files[PREDICTIONS] = self._write(PREDICTIONS, last.to_bytes())
            if self.execution.keep_weights:
                state = self.trainer.network.state_dict()
                files[WEIGHTS] = self._write(WEIGHTS, weights.to_bytes(state))
            row = max((row for row in history if row["top1"] is not None), key=lambda row: row["top1"])
            best = Best(epoch=row["epoch"], top1=row["top1"], top5=row["top5"])
            outcome = {"top1": last.top1, "top5": last.top5, "test_loss": last.loss, "best": best}
        dataset = self.data.dataset
        data = Data(
            name=dataset.name,
            label=dataset.label,
            checksum=dataset.checksum,
            training_images=len(dataset.train_labels),
            evaluation_images=len(dataset.evaluation_labels),
            **({"class_names": list(dataset.class_names)} if self.settings.data.function else {}),
        )
        record = Record.of(
            self.settings.experiment,
            self.settings.identity(),
            data=data,
            files=files,
            provenance=self._provenance(),
            **outcome,
        )
        self.require_claim()
        try:
            write_record(self.folder, record)
        except FileExistsError:
            raise ClaimLostError(
                f"{self.folder.name}: another process has ended this run meanwhile"
            ) from None
        return record

    def _totals(self) -> EpochTotals:
        """The epoch's totals so far; a step whose loss was not finite ends the run."""
        totals, history = self.trainer.totals(), self.state.history
        if totals.failed_step is not None:
            last_finite_loss = totals.last_finite_loss
            # A first step that fails has its last finite loss, the mean of an epoch, in the epoch before.
            if last_finite_loss is None and history:
                last_finite_loss = history[-1]["train_loss"]
            self._fail(totals.failed_step, "non-finite loss", last_finite_loss)
        return totals

    def _fail(self, step: int, reason: str, last_finite_loss: float | None) -> None:
        epoch = self.state.epoch + 1
        self.failure = Failure(epoch=epoch, step=step, reason=reason, last_finite_loss=last_finite_loss)

    def _write(self, name: str, content: bytes) -> str:
        """Write a file of the run if it is still this process's, and return its checksum."""
        self.require_claim()
        write_atomically(self.folder / name, content)
        return sha256(content)

    def _provenance(self) -> Provenance:
        state, device = self.state, self.data.device
        commit, dirty = provenance.commit(*source_files(self.settings.functions))
        return Provenance(
            commit=commit,
            dirty=dirty,
            versions=provenance.versions(),
            device=describe(device),
            host=provenance.host(),
            precision=self.settings.precision,
            started=state.started,
            finished=provenance.now(),
            duration_seconds=round(self.seconds, 3),
            resumed=state.resumed,
            compile=self.execution.compile,
            earlier={str(number): text for number, text in enumerate(state.segments[:-1], 1)} or None,
            threads=torch.get_num_threads() if device.type == "cpu" else None,
        )


def _resume(settings: RunSettings, folder: Path, trainer: Trainer) -> RunState:
    """The run's state, with the trainer in it: that of its newest checkpoint, else that of a new run."""
    found = checkpoint.load(folder, settings.hash)
    if found is None:
        trainer.start_epoch(0)
        return RunState()
    try:
        tensors = found.pop("trainer")
        state = RunState(**found)
        trainer.restore(tensors, state.epoch)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        problem = " ".join(str(error).split())[:100]
        raise UserError(
            f"{folder}: its checkpoint is whole but not of such a run ({problem}); move it away to start this run anew"
        ) from error
    state.resumed += 1
    tqdm.write(f"{settings.run}: goes on in epoch {state.epoch + 1} of {settings.optim.epochs}")
    return state


def _csv(history: list[dict[str, Any]]) -> bytes:
    """The file `history.csv`."""
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in history for key in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue().encode()
