"""Carries out a plan of runs: which are still to do, which are claimed here, whose turn it is, and when to stop."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import OmegaConf
from tqdm import tqdm

from anchorloss.config.identity import RunSettings
from anchorloss.config.settings import Execution
from anchorloss.config.source import source_files
from anchorloss.data.dataset import load_dataset
from anchorloss.device import choose_convolutions, resolve_device
from anchorloss.errors import ClaimLostError, RunError, UserError
from anchorloss.runs import provenance
from anchorloss.runs.claims import Claim
from anchorloss.runs.files import write_once
from anchorloss.runs.folder import (
    CONFIG,
    RECORD,
    Record,
    read_config,
    read_record,
    remove_leftovers,
    run_config,
    run_folder,
)
from anchorloss.sweep.messages import (
    SweepProgress,
    announce,
    refuse_failed,
    say_ended,
    say_other_code,
    say_skipped,
    say_to_do,
)
from anchorloss.sweep.side_by_side import SideBySide, cores
from anchorloss.sweep.signals import Signals
from anchorloss.terminal import counted
from anchorloss.tracking import loggers
from anchorloss.training.build import check, distinct_code
from anchorloss.training.device_data import DeviceData
from anchorloss.training.run import train

POLL_SECONDS = 0.5
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


def execute(plan: list[RunSettings], execution: Execution, begun: float | None = None) -> None:
    """Train every run of the plan that has no record, sharing them with other processes that were given the same.

    Finished runs are skipped with a line. Returns when every run of the plan has a record, made here or elsewhere, or
    when the time that `execution.minutes` gives is spent, from `begun` on, by `time.monotonic()`; from now if None.

    Raises:
        SystemExit: with status 1 if runs failed, and with 128 + n after signal n.
        UserError: a setting, the data or a file of a run is wrong.
        RunError: a file cannot be written.
    """
    begun = time.monotonic() if begun is None else begun
    for run in plan:
        # Kept from here on, so that records name the code that runs.
        provenance.commit(*source_files(run.functions))
    device = resolve_device(execution.device)
    prepare_torch(execution, device)
    _Sweep(plan, execution, device).carry_out(begun)
    refuse_failed([read_record(_folder(execution, settings)) for settings in plan])


class _Sweep:
    """The runs still to do, those being trained here, and the claims on them."""

    def __init__(self, plan: list[RunSettings], execution: Execution, device: torch.device) -> None:
        self._plan = plan
        self._execution = execution
        self._device = device
        self._data: dict[str, DeviceData] = {}
        self._new_logger = loggers(execution.logger, plan)
        self._width = execution.concurrent or default_width(execution, device)
        self._side_by_side = SideBySide(device, torch.get_num_threads())
        self._waiting: list[RunSettings] = []
        self._claims: dict[str, Claim] = {}
        self._to_retry: dict[str, Record] = {}
        self._live: list[_LiveRun] = []
        self._next_look = 0.0
        self._prepare()
        self._progress = SweepProgress(plan, self._epochs_left())

    def _prepare(self) -> None:
        """Leave out what is done, and make the folders of the rest once their data is at hand."""
        skipped: list[Record] = []
        for settings in self._plan:
            record = read_record(_folder(self._execution, settings))
            if record is not None and record.status == "failed" and self._execution.retry_failed:
                self._to_retry[settings.run] = record
            elif record is not None:
                say_skipped(record, keep_weights=self._execution.keep_weights)
                remove_leftovers(_folder(self._execution, settings))
                skipped.append(record)
                continue
            self._waiting.append(settings)
        say_other_code(skipped)
        announce(self._plan)
        say_to_do(self._plan, len(self._waiting), self._device)
        # Before anything is written: an archive that is missing or damaged leaves no folder behind.
        for settings in self._waiting:
            self._load(settings)
        for settings in distinct_code(self._waiting):
            if settings.data.function or settings.model.function:
                check(settings, *self._load(settings).size)
        for settings in self._waiting:
            folder = _folder(self._execution, settings)
            _make_folder(settings, folder)
            self._claims[settings.run] = Claim(folder)

    def _load(self, settings: RunSettings) -> DeviceData:
        """The run's data on the device, loaded once for all runs on it."""
        key = repr(settings.data)
        if key not in self._data:
            self._data[key] = DeviceData.of(load_dataset(settings.data), self._device)
        return self._data[key]

    def carry_out(self, begun: float) -> None:
        """Train until every planned run has its record, the time is spent or a signal comes."""
        minutes = self._execution.minutes
        deadline = begun + 60 * minutes if minutes else math.inf
        is_told = False
        with Signals() as signals, self._progress.bar:
            try:
                while (self._waiting or self._live) and signals.received is None:
                    if time.monotonic() >= deadline:
                        break
                    self._start_some()
                    if self._live:
                        self._take_turns()
                    elif self._waiting:
                        if not is_told:
                            elsewhere = counted(len(self._waiting), "run")
                            print(f"waiting for {elsewhere} trained elsewhere", file=sys.stderr)
                        is_told = True
                        signals.sleep(min(POLL_SECONDS, max(deadline - time.monotonic(), 0)))
                    open_runs = len(self._waiting) + len(self._live)
                    self._progress.show(len(self._plan) - open_runs, self._epochs_left())
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
                f"stopped after minutes={minutes:g} with {unfinished} of {counted(len(self._plan), 'run')} "
                f"unfinished; {GO_ON}"
            )

    def _start_some(self) -> None:
        """Fill the free places; looking for runs that others have left is not worth doing before every step."""
        if self._live and time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + POLL_SECONDS
        for settings in list(self._waiting):
            if len(self._live) == self._width:
                return
            claim = self._claims[settings.run]
            if self._is_done(settings):
                self._waiting.remove(settings)
            elif claim.acquire():
                self._waiting.remove(settings)
                # Its last owner may have finished it between the look and the claim.
                if self._is_done(settings):
                    claim.release()
                else:
                    self._live.append(self._start(settings, claim))

    def _start(self, settings: RunSettings, claim: Claim) -> _LiveRun:
        folder = _folder(self._execution, settings)
        # Another process may have set it aside, and left a checkpoint to go on from.
        if self._to_retry.pop(settings.run, None) is not None and (folder / RECORD).exists():
            _set_failed_aside(folder)
        data = self._load(settings)
        logger = self._new_logger(settings, len(data.dataset.train_labels))
        training = train(settings, folder, data, self._execution, logger, claim.require)
        return _LiveRun(settings, claim, training)

    def _is_done(self, settings: RunSettings) -> bool:
        record = read_record(_folder(self._execution, settings))
        return record is not None and record != self._to_retry.get(settings.run)

    def _take_turns(self) -> None:
        """Carry every run that is trained here on by its turn."""
        live = list(self._live)
        for run, outcome in zip(live, self._side_by_side.each(_take_turn, live), strict=True):
            if isinstance(outcome, float):
                if run.epochs_done is None:
                    self._progress.skip(int(outcome))
                run.epochs_done = outcome
                continue
            if isinstance(outcome, ClaimLostError):
                tqdm.write(str(outcome), file=sys.stderr)
                self._waiting.append(run.settings)
            else:
                say_ended(outcome)
            self._live.remove(run)
            run.claim.release()
            self._next_look = 0.0

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


def _folder(execution: Execution, settings: RunSettings) -> Path:
    return run_folder(execution.results_dir, settings.experiment, settings.run)


def default_width(execution: Execution, device: torch.device) -> int:
    """What `concurrent=auto` is."""
    if device.type == "cuda":
        return CONCURRENT_ON_GPU
    return max(1, cores() // execution.threads) if device.type == "cpu" and execution.threads else 1


def _make_folder(settings: RunSettings, folder: Path) -> None:
    """Make the run's folder with its config, which says the same whoever writes it."""
    config = run_config(settings.experiment, settings.identity())
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"results_dir: {folder} cannot be made ({error.strerror}); name another") from None
    try:
        write_once(folder / CONFIG, OmegaConf.to_yaml(OmegaConf.create(config)).encode())
    except FileExistsError:
        if read_config(folder) != config:
            raise UserError(
                f"{folder / CONFIG}: differs from the run it names; move the folder away"
            ) from None


def prepare_torch(execution: Execution, device: torch.device) -> None:
    """Set threads and determinism for the whole process, before anything is computed."""
    if execution.threads:
        torch.set_num_threads(execution.threads)
    if device.type == "cpu" or execution.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        # Nothing here reads memory before writing it; clearing it costs a twentieth of a step.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    choose_convolutions(deterministic=execution.deterministic)


def _set_failed_aside(folder: Path) -> None:
    """Keep the failed record under a name of its own; nothing is overwritten."""
    number = 1
    while (folder / f"failed-{number}.json").exists():
        number += 1
    (folder / RECORD).rename(folder / f"failed-{number}.json")
