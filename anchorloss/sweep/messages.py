"""What a sweep prints: what will run, what has ended, and how far the whole sweep has come."""

from __future__ import annotations

import math
import os
import sys
import time
from collections import Counter
from collections.abc import Collection, Sequence

import torch
from tqdm import tqdm

from anchorloss.config.identity import RunSettings
from anchorloss.config.settings import Execution
from anchorloss.device import describe
from anchorloss.runs.differences import differences, flatten
from anchorloss.runs.folder import WEIGHTS, Record, read_run, run_folder
from anchorloss.runs.provenance import made_with_other_code, short_commit
from anchorloss.terminal import counted

BAR_SECONDS = 0.5
# Between two lines in a log file.
LOG_SECONDS = 60.0


def announce(plan: Sequence[RunSettings]) -> None:
    """Say what was asked for, before it begins."""
    groups: dict[tuple[str, str, int], list[RunSettings]] = {}
    for run in plan:
        groups.setdefault((run.model.name, run.data.label, run.optim.epochs), []).append(run)
    for (model, data, epochs), runs in groups.items():
        losses = ", ".join(dict.fromkeys(run.loss.name for run in runs))
        seeds = ", ".join(str(seed) for seed in dict.fromkeys(run.seed for run in runs))
        swept = "".join(f" x {key} {', '.join(values)}" for key, values in _swept(runs).items())
        print(
            f"{runs[0].experiment}: {counted(len(runs), 'run')} = losses {losses} x seeds {seeds}{swept}; "
            f"{model}, {data}, {counted(epochs, 'epoch')}"
        )


def say_to_do(plan: Sequence[RunSettings], to_do: int, device: torch.device) -> None:
    """Say how much of the plan is left to do, and where."""
    print(f"{len(plan) - to_do} of {len(plan)} are done, {to_do} to do, on {describe(device)}", flush=True)


def list_plan(plan: Sequence[RunSettings], execution: Execution) -> None:
    """Print what a plan would train, resume and skip: the settings that all runs share, then each run and its own."""
    announce(plan)
    settings = [flatten(run.identity()) for run in plan]
    shared = {key: value for key, value in settings[0].items() if all(s.get(key) == value for s in settings)}
    print("\n".join(f"  {key}={value}" for key, value in shared.items()))
    for run, own in zip(plan, settings, strict=True):
        found = read_run(run_folder(execution.results_dir, run.experiment, run.run))
        epochs = found.progress.epoch if found.progress else 0
        what = {
            "finished": "skipped: has finished",
            "failed": "trained again: has failed" if execution.retry_failed else "skipped: has failed",
            "running": "skipped: is trained elsewhere at present",
            "interrupted": f"resumed after {counted(epochs, 'epoch')}",
        }.get(found.state, "trained")
        differing = ", ".join(f"{key}={value}" for key, value in own.items() if key not in shared)
        print(f"{run.run}: {what}" + f" ({differing})" * bool(differing))


def say_skipped(record: Record, *, keep_weights: bool) -> None:
    """Say that a run has its record already."""
    if record.status == "failed":
        print(f"{record.run}: has failed; skipped (--retry-failed runs it again)")
    else:
        without = keep_weights and WEIGHTS not in record.files
        hint = " (its weights were not kept; to have them, train it again in another results_dir)" * without
        print(f"{record.run}: finished with Top-1 {record.top1:.2f} %; skipped{hint}")


def say_other_code(records: Collection[Record]) -> None:
    """Say in one line which finished runs were made before the code of training was changed."""
    of_commit = Counter(record.provenance.commit for record in records if record.status == "finished")
    if other := made_with_other_code(of_commit):
        runs = sum(of_commit[commit] for commit in other)
        commits = ", ".join(short_commit(commit, False) for commit in other)
        print(
            f"{counted(runs, 'finished run')} {'was' if runs == 1 else 'were'} made with other training code "
            f"(commit{'s' * (len(other) > 1)} {commits}); to train anew, name another results_dir"
        )


def say_ended(record: Record) -> None:
    """Say how a run ended, above the progress bars."""
    if record.failure is not None:
        step = f", step {record.failure.step}" if record.failure.step >= 0 else ""  # an evaluation has none
        place = f"epoch {record.failure.epoch}{step}"
        tqdm.write(f"{record.run}: failed in {place}: {record.failure.reason}", file=sys.stderr)
    else:
        tqdm.write(f"{record.run}: Top-1 {record.top1:.2f} %, Top-5 {record.top5:.2f} %")


def refuse_failed(records: Collection[Record | None]) -> None:
    """Name the failed runs among the records of a plan, and end the command with status 1 if there are any."""
    failed = [record.run for record in records if record is not None and record.status == "failed"]
    if failed:
        print(
            f"{len(failed)} of {counted(len(records), 'run')} failed: {', '.join(failed)}; "
            "--retry-failed runs them again",
            file=sys.stderr,
        )
        raise SystemExit(1)


class SweepProgress:
    """One line for the whole sweep until its `bar` is closed: a bar on a terminal, else a line a minute on stderr.

    `epochs_left` of the epochs of the plan's runs are still to do at the start.
    """

    def __init__(self, plan: Sequence[RunSettings], epochs_left: float) -> None:
        self._plan = plan
        self._epochs = sum(run.optim.epochs for run in plan)
        self._left_at_start = epochs_left
        self._begun = time.monotonic()
        self._is_terminal = sys.stderr.isatty()
        self._shown = -math.inf if self._is_terminal else self._begun
        # Of several processes on one terminal the first has the line.
        is_first = os.environ.get("TQDM_POSITION", "1") == "1"
        self.bar = tqdm(
            total=self._epochs,
            initial=self._epochs - epochs_left,
            desc=plan[0].experiment,
            bar_format="{desc} |{bar}| {percentage:.0f} %{postfix}",
            position=0,
            leave=False,
            disable=not (self._is_terminal and is_first),
            dynamic_ncols=True,
            mininterval=0,
        )

    def skip(self, epochs: float) -> None:
        """Do not count these epochs as trained now: a run goes on from a checkpoint that already has them."""
        self._left_at_start -= epochs

    def show(self, runs_done: int, epochs_left: float) -> None:
        """Show how many runs are done and how many epochs are left, if the last time was a while ago."""
        now = time.monotonic()
        if now - self._shown < (BAR_SECONDS if self._is_terminal else LOG_SECONDS):
            return
        self._shown = now
        trained = self._left_at_start - epochs_left
        left = ""
        if trained > 0:
            left = f"{tqdm.format_interval(epochs_left * (now - self._begun) / trained)} left"
        done = f"{self._plan[0].experiment}: {runs_done} of {counted(len(self._plan), 'run')} done"
        if self._is_terminal:
            self.bar.n = self._epochs - epochs_left
            self.bar.set_description_str(done, refresh=False)
            self.bar.set_postfix_str(left)
        else:
            share = 1 - epochs_left / self._epochs
            print(f"{done}, {share:.0%} of the epochs{', ' * bool(left)}{left}", file=sys.stderr, flush=True)


def _swept(runs: Sequence[RunSettings]) -> dict[str, list[str]]:
    """The settings beside loss and seed in which the runs differ, each with its values."""
    values: dict[str, dict[str, None]] = {}
    for *_, difference in differences([(run.loss.name, run.identity()) for run in runs]):
        for key, pair in difference.items():
            values.setdefault(key, {}).update(dict.fromkeys(pair))
    return {key: list(of_key) for key, of_key in values.items()}
