"""Carries out a plan of runs: which are still to do, which are mine, who takes turns, and what a signal does."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import OmegaConf
from tqdm import tqdm

from anchorloss.config.settings import Execution, RunSettings
from anchorloss.device import choose_convolutions, describe, resolve_device
from anchorloss.errors import ClaimLostError, UserError
from anchorloss.runs import provenance, store
from anchorloss.runs.atomic import remove_temporary_files, write_once
from anchorloss.runs.claims import Claim
from anchorloss.runs.paths import run_folder
from anchorloss.sweep.lockstep import SideBySide, cores
from anchorloss.sweep.signals import Signals
from anchorloss.sweep.workplaces import Workplaces
from anchorloss.tracking.tracking import Tracking
from anchorloss.training.loop import train

POLL_SECONDS = 0.5
# What `concurrent=0` means on a GPU. Not measured: no GPU was at hand.
CONCURRENT_ON_GPU = 8


@dataclass
class _Live:
    """A run being trained here."""

    settings: RunSettings
    claim: Claim
    steps: Generator[None, None, store.Record]


def execute(plan: list[RunSettings], execution: Execution) -> None:
    """Train every run of the plan that has no record, sharing them with other processes that were given the same.

    Finished runs are skipped with a line. Returns when every run of the plan has a record, made here or elsewhere.

    Raises: SystemExit with status 1 if runs failed, 128 + n after signal n; UserError and RunError as they come.
    """
    provenance.commit()  # kept from here on: the code that runs is the code of now
    device = resolve_device(execution.device)
    prepare_torch(execution, device)
    sweep = _Sweep(execution, device)
    sweep.plan(plan)
    sweep.carry_out()
    failed = [settings.run for settings in plan if _failed(store.read_record(sweep.folder(settings)))]
    if failed:
        runs = ", ".join(failed)
        print(
            f"{len(failed)} of {len(plan)} runs failed: {runs}; --retry-failed runs them again",
            file=sys.stderr,
        )
        raise SystemExit(1)


class _Sweep:
    """The runs still to do, those being trained here, and the claims on them."""

    def __init__(self, execution: Execution, device: torch.device) -> None:
        self._execution = execution
        self._device = device
        self._workplaces = Workplaces(execution, device)
        self._tracking = Tracking(execution.logger)
        self._width = execution.concurrent or _default_width(device, execution.threads)
        self._side_by_side = SideBySide(device, torch.get_num_threads())
        self._waiting: list[RunSettings] = []
        self._claims: dict[str, Claim] = {}
        self._to_retry: dict[str, store.Record] = {}
        self._live: list[_Live] = []
        self._next_look = 0.0

    def folder(self, settings: RunSettings) -> Path:
        return run_folder(self._execution.results_dir, settings.experiment, settings.run)

    def plan(self, plan: list[RunSettings]) -> None:
        """Leave out what is done, and make the folders of the rest once their data is at hand."""
        for settings in plan:
            record = store.read_record(self.folder(settings))
            if record is not None and _failed(record) and self._execution.retry_failed:
                self._to_retry[settings.run] = record
            elif record is not None:
                _say_skipped(record, keep_weights=self._execution.keep_weights)
                continue
            self._waiting.append(settings)
        _announce(plan, len(self._waiting), self._device)
        # Before anything is written: an archive that is missing or damaged leaves no folder behind.
        for settings in self._waiting:
            self._workplaces.load(settings)
        for settings in self._waiting:
            _plan_folder(settings, self.folder(settings))
            self._claims[settings.run] = Claim(self.folder(settings))

    def carry_out(self) -> None:
        """Train until every planned run has its record."""
        told = False
        with Signals() as signals:
            try:
                while self._waiting or self._live:
                    self._start_some()
                    if not self._live and self._waiting:
                        if not told:
                            print(
                                f"waiting for {len(self._waiting)} runs that are trained elsewhere",
                                file=sys.stderr,
                            )
                        told = True
                        signals.sleep(POLL_SECONDS)
                    if signals.received is None:
                        live = list(self._live)
                        for run, outcome in zip(live, self._side_by_side.each(_step, live), strict=True):
                            self._settle(run, outcome)
                    if signals.received is not None:
                        self._stop(signals)
            finally:
                for run in self._live:
                    run.claim.release()

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

    def _start(self, settings: RunSettings, claim: Claim) -> _Live:
        folder = self.folder(settings)
        # Another process may only now be planning the sweep, and writing the folder's config.
        remove_temporary_files(folder, store.CONFIG)
        if self._to_retry.pop(settings.run, None) is not None:
            _set_failed_aside(folder)
        tracker = self._tracking.start(settings)
        return _Live(
            settings, claim, train(settings, folder, claim, self._workplaces.load(settings), tracker)
        )

    def _is_done(self, settings: RunSettings) -> bool:
        record = store.read_record(self.folder(settings))
        return record is not None and record != self._to_retry.get(settings.run)

    def _settle(self, run: _Live, outcome: store.Record | ClaimLostError | None) -> None:
        if outcome is None:
            return
        if isinstance(outcome, ClaimLostError):
            tqdm.write(str(outcome), file=sys.stderr)
            self._waiting.append(run.settings)
        else:
            _say_ended(outcome)
        self._live.remove(run)
        run.claim.release()
        self._next_look = 0.0

    def _stop(self, signals: Signals) -> None:
        for run in list(self._live):
            run.steps.close()
            self._live.remove(run)
            run.claim.release()
        print(
            "interrupted; a checkpoint of each unfinished run is saved: give the same command again to go on",
            file=sys.stderr,
        )
        signals.pass_on()


def _step(run: _Live) -> store.Record | ClaimLostError | None:
    """One step of the run: its record if it was the last, the error if the run is another process's now."""
    try:
        next(run.steps)
    except StopIteration as end:
        record: store.Record = end.value
        return record
    except ClaimLostError as loss:
        return loss
    return None


def _default_width(device: torch.device, threads: int) -> int:
    if device.type == "cuda":
        return CONCURRENT_ON_GPU
    return max(1, cores() // threads) if device.type == "cpu" and threads else 1


def _plan_folder(settings: RunSettings, folder: Path) -> None:
    """Make the run's folder with its config, which says the same whoever writes it."""
    config = settings.identity()
    config["seeds"] = [config.pop("seed")]
    content = OmegaConf.to_yaml(
        OmegaConf.create({"experiment": {"name": settings.experiment}, **config})
    ).encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_once(folder / store.CONFIG, content)
    except FileExistsError:
        if (folder / store.CONFIG).read_bytes() != content:
            raise UserError(
                f"{folder / store.CONFIG}: differs from the run it names; move the folder away"
            ) from None
    except OSError as error:
        raise UserError(f"results_dir={folder}: cannot be made ({error.strerror}); name another") from None


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


def _announce(plan: list[RunSettings], to_do: int, device: torch.device) -> None:
    """Say exactly what will run, before it does."""
    for model, data, epochs in dict.fromkeys(
        (run.model.name, run.data.name, run.optim.epochs) for run in plan
    ):
        runs = [
            run for run in plan if (run.model.name, run.data.name, run.optim.epochs) == (model, data, epochs)
        ]
        losses = ", ".join(dict.fromkeys(run.loss.name for run in runs))
        seeds = ", ".join(str(seed) for seed in dict.fromkeys(run.seed for run in runs))
        swept = "".join(f" x {key} {', '.join(values)}" for key, values in _swept(runs).items())
        print(
            f"{runs[0].experiment}: {len(runs)} runs = losses {losses} x seeds {seeds}{swept}; "
            f"{model}, {data}, {epochs} epochs"
        )
    print(f"{len(plan) - to_do} of {len(plan)} are done, {to_do} to do, on {describe(device)}", flush=True)


def _swept(runs: list[RunSettings]) -> dict[str, list[str]]:
    """The settings beside loss and seed in which the runs differ, each with its values."""
    values: dict[str, dict[str, None]] = {}
    for *_, difference in store.differences([(run.loss.name, run.identity()) for run in runs]):
        for key, pair in difference.items():
            values.setdefault(key, {}).update(dict.fromkeys(pair))
    return {key: list(of_key) for key, of_key in values.items()}


def _failed(record: store.Record | None) -> bool:
    return record is not None and record.status == "failed"


def _set_failed_aside(folder: Path) -> None:
    """Keep the failed record under a name of its own; nothing is overwritten."""
    number = 1
    while (folder / f"failed-{number}.json").exists():
        number += 1
    (folder / store.RECORD).rename(folder / f"failed-{number}.json")


def _say_skipped(record: store.Record, *, keep_weights: bool) -> None:
    if record.status == "failed":
        print(f"{record.run}: has failed; skipped (--retry-failed runs it again)")
    else:
        without = keep_weights and store.WEIGHTS not in record.files
        hint = " (its weights were not kept; to have them, train it again in another results_dir)" * without
        print(f"{record.run}: finished with Top-1 {record.top1:.2f} %; skipped{hint}")


def _say_ended(record: store.Record) -> None:
    if record.failure is not None:
        place = f"epoch {record.failure.epoch}, step {record.failure.step}"
        tqdm.write(f"{record.run}: failed at {place}: {record.failure.reason}", file=sys.stderr)
    else:
        tqdm.write(f"{record.run}: Top-1 {record.top1:.2f} %, Top-5 {record.top5:.2f} %")
