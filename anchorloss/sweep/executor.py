"""Carries out a plan of runs: which are still to do, which are claimed here, whose turn it is, and when to stop."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig
from tqdm import tqdm

from anchorloss.config.own_code import source_files
from anchorloss.config.settings import Execution, RunSettings
from anchorloss.data.dataset import load_dataset
from anchorloss.device import describe, resolve_device
from anchorloss.errors import ClaimLostError, RunError, UserError
from anchorloss.runs import provenance
from anchorloss.runs.claims import FILE, Claim
from anchorloss.runs.folder import Record, read_record, remove_leftovers
from anchorloss.sweep.messages import SweepProgress, conclude, labels, left_to_do, list_plan, say_ended
from anchorloss.sweep.plan import folder_of, make_folder, plan, read_records, set_failed_aside
from anchorloss.sweep.side_by_side import SideBySide, cores
from anchorloss.sweep.signals import Signals
from anchorloss.terminal import counted
from anchorloss.tracking import loggers
from anchorloss.training.build import check, distinct_code
from anchorloss.training.device_data import DeviceData
from anchorloss.training.run import train

POLL_SECONDS = 0.5
# How long to leave a GPU alone on which no step has ended.
IDLE_SECONDS = 0.001
# What `concurrent=auto` means on a GPU.
CONCURRENT_ON_GPU = 8
GO_ON = "a checkpoint of each unfinished run is saved: give the same command again to go on"


@dataclass
class _LiveRun:
    """A run that is trained here, and how many of its epochs are done; None before its first turn."""

    settings: RunSettings
    claim: Claim
    training: Generator[float, None, Record]
    epochs_done: float | None = None


def train_all(configs: Sequence[DictConfig], share: int | None = None) -> None:
    """Check the jobs of a command as one plan, and train their runs in this process, or list them.

    Raises:
        UserError, RunError, SystemExit: as `plan` and `execute`.
    """
    begun = time.monotonic()
    runs, execution = plan(configs)
    if execution.dry_run:
        list_plan(runs, execution)
    else:
        execute(runs, execution, begun, share)


def execute(
    runs: list[RunSettings], execution: Execution, begun: float | None = None, share: int | None = None
) -> None:
    """Train each of the runs that has no record, sharing them with other processes that were given the same.

    Finished runs are skipped with a line. Returns when every run has a record, made here or elsewhere, or
    when the time that `execution.minutes` gives is spent, from `begun` on, by `time.monotonic()`; from now if None.

    With a `share` this is a worker of a launcher, which has said what is to do and will say what has come of it: no more
    than so many runs are trained at once, and the end is when living processes train all that is left.

    Raises:
        SystemExit: with status 1 if runs failed, and with 128 + n after signal n.
        UserError: a setting, the data or a file of a run is wrong.
        RunError: a file cannot be written.
    """
    begun = time.monotonic() if begun is None else begun
    for run in runs:
        # Kept from here on, so that records name the code that runs.
        provenance.commit(*source_files(run.functions))
    device = resolve_device(execution.device)
    prepare_torch(execution, device)
    to_do = left_to_do(runs, execution, where=f", on {describe(device)}" if share is None else None)
    for run in runs:
        if run not in to_do:
            remove_leftovers(folder_of(run, execution))
    if to_do:
        _Sweep(runs, to_do, execution, device, share).carry_out(begun)
    if share is None:
        conclude(runs, read_records(runs, execution))


class _Sweep:
    """The runs still to do, those being trained here, and the claims on them."""

    def __init__(
        self,
        runs: list[RunSettings],
        to_do: list[RunSettings],
        execution: Execution,
        device: torch.device,
        share: int | None,
    ) -> None:
        self._runs = runs
        self._execution = execution
        self._share = share
        self._new_logger = loggers(execution.logger, runs)
        concurrent = execution.concurrent or default_concurrent(execution, device)
        self._concurrent = min(concurrent, share or concurrent)
        self._side_by_side = SideBySide(device, torch.get_num_threads())
        self._labels = labels(runs)
        self._waiting = to_do
        self._live: list[_LiveRun] = []
        self._next_look = 0.0
        # Before anything is written: an archive that is missing or damaged leaves no folder behind.
        sets = {repr(run.data): run.data for run in to_do}
        self._data = {key: DeviceData.of(load_dataset(data), device) for key, data in sets.items()}
        for run in distinct_code(to_do):
            if run.data.function or run.model.function:
                data = self._data[repr(run.data)]
                check(run, data.classes, len(data.train_labels))
        if execution.retry_failed:
            set_failed_aside(to_do, execution)
        for run in to_do:
            make_folder(run, execution)
        self._claims = {run.run: Claim(folder_of(run, execution)) for run in to_do}
        self._refreshed: dict[str, float] = {}
        self._progress = SweepProgress(runs, self._epochs_left())

    def carry_out(self, begun: float) -> None:
        """Train until every planned run has its record, the time is spent or a signal comes."""
        minutes = self._execution.minutes
        deadline = begun + 60 * minutes if minutes else math.inf
        is_told = False
        with Signals("stopping after this step") as signals, self._progress.bar:
            try:
                while (self._waiting or self._live) and signals.received is None:
                    if time.monotonic() >= deadline:
                        break
                    self._start_some()
                    if self._live:
                        if not self._take_turns():
                            time.sleep(IDLE_SECONDS)
                    elif self._waiting:
                        if self._share is not None and self._are_all_elsewhere():
                            return
                        if not is_told and self._share is None:
                            elsewhere = counted(len(self._waiting), "run")
                            print(f"waiting for {elsewhere} trained elsewhere", file=sys.stderr)
                        is_told = True
                        signals.sleep(min(POLL_SECONDS, max(deadline - time.monotonic(), 0)))
                    open_runs = len(self._waiting) + len(self._live)
                    self._progress.show(len(self._runs) - open_runs, self._epochs_left())
            except BaseException:
                # What went wrong matters more than what else cannot be saved now.
                with contextlib.suppress(RunError, UserError):
                    self._stop()
                raise
            unfinished = len(self._waiting) + len(self._live)
            self._stop()
            if unfinished and signals.received is not None:
                print(f"interrupted; {GO_ON}", file=sys.stderr)
                signals.pass_on()
        if unfinished:
            print(
                f"stopped after minutes={minutes:g} with {unfinished} of {counted(len(self._runs), 'run')} "
                f"unfinished; {GO_ON}"
            )

    def _start_some(self) -> None:
        """Fill the free places; looking for runs that others have left is not worth doing before every step."""
        if self._live and time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + POLL_SECONDS
        for settings in list(self._waiting):
            if len(self._live) == self._concurrent:
                return
            folder, claim = (folder_of(settings, self._execution), self._claims[settings.run])
            if read_record(folder) is not None:
                self._waiting.remove(settings)
            elif claim.acquire():
                self._waiting.remove(settings)
                # Its last owner may have finished it between the look and the claim.
                if read_record(folder) is not None:
                    claim.release()
                else:
                    self._live.append(self._start(settings, folder, claim))

    def _start(self, settings: RunSettings, folder: Path, claim: Claim) -> _LiveRun:
        data = self._data[repr(settings.data)]
        logger = self._new_logger(settings, len(data.dataset.train_labels))
        training = train(settings, folder, data, self._execution, logger, claim.require)
        return _LiveRun(settings, claim, training)

    def _take_turns(self) -> bool:
        """Carry every run that is trained here on by its turn; return whether one of them has come further."""
        has_moved = False
        live = list(self._live)
        for run, outcome in zip(live, self._side_by_side.each(_take_turn, live), strict=True):
            has_moved |= outcome != run.epochs_done
            if isinstance(outcome, float):
                if run.epochs_done is None:
                    self._progress.skip(outcome)
                run.epochs_done = outcome
                continue
            if isinstance(outcome, ClaimLostError):
                tqdm.write(str(outcome), file=sys.stderr)
                self._waiting.append(run.settings)
            else:
                say_ended(outcome, self._labels[outcome.run])
            self._live.remove(run)
            run.claim.release()
            self._next_look = 0.0
        return has_moved

    def _are_all_elsewhere(self) -> bool:
        """Whether each run that is left has an owner that lives: the claim was refreshed since it was first seen here."""
        for run in self._waiting:
            try:
                refreshed = (folder_of(run, self._execution) / FILE).stat().st_mtime
            except OSError:  # released meanwhile
                return False
            if refreshed == self._refreshed.setdefault(run.run, refreshed):
                return False
        return True

    def _epochs_left(self) -> float:
        left = sum(settings.optim.epochs for settings in self._waiting)
        return left + sum(run.settings.optim.epochs - (run.epochs_done or 0) for run in self._live)

    def _stop(self) -> None:
        """Save a checkpoint of every run that is trained here, and give up its claim.

        Raises:
            RunError: a checkpoint cannot be written; those of the other runs are.
        """
        with contextlib.ExitStack() as stack:
            while self._live:
                run = self._live.pop()
                stack.callback(run.claim.release)
                stack.callback(_close, run)


def _take_turn(run: _LiveRun) -> float | Record | ClaimLostError:
    """The run's next turn: its epochs done, its record if it has ended, the error if it is another process's now."""
    try:
        return next(run.training)
    except StopIteration as end:
        record: Record = end.value
        return record
    except ClaimLostError as loss:
        return loss


def _close(run: _LiveRun) -> None:
    try:
        run.training.close()
    except ClaimLostError as loss:
        tqdm.write(str(loss), file=sys.stderr)


def default_concurrent(execution: Execution, device: torch.device) -> int:
    """What `concurrent=auto` is."""
    if device.type == "cuda":
        return CONCURRENT_ON_GPU
    return max(1, cores() // execution.threads) if device.type == "cpu" and execution.threads else 1


def prepare_torch(execution: Execution, device: torch.device) -> None:
    """Set threads and determinism for the whole process, before anything is computed."""
    if execution.threads:
        torch.set_num_threads(execution.threads)
    if device.type == "cpu" or execution.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        # Nothing here reads memory before writing it; clearing it costs a twentieth of a step.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # The fastest algorithms unless they are to be deterministic, and float32 without TF32.
    torch.backends.cudnn.benchmark = not execution.deterministic
    torch.backends.cudnn.allow_tf32 = False
