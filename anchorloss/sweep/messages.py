"""What a sweep prints: what will run, what has ended, and how far the whole sweep has come."""

from __future__ import annotations

import math
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from statistics import mean, stdev

from tqdm import tqdm

from anchorloss.config.settings import Execution, RunSettings
from anchorloss.runs.differences import differences, flatten
from anchorloss.runs.folder import WEIGHTS, Record, read_run
from anchorloss.runs.provenance import made_with_other_code, short_commit
from anchorloss.sweep.plan import folder_of, read_records
from anchorloss.terminal import counted

BAR_SECONDS = 0.5
# Between two lines in a log file.
LOG_SECONDS = 60.0
# Before the first of them: an estimate from fewer steps is worth little.
FIRST_LINE_SECONDS = 5.0
DAY = 86400
QUICKER = (
    "PROFILE=small (experiment=table1_small) takes hours on two cores; Ctrl-C saves what is trained so far"
)


def announce(plan: Sequence[RunSettings]) -> None:
    """Say what was asked for, before it begins."""
    losses, seeds, models, data, epochs = (
        ", ".join(dict.fromkeys(map(str, values)))
        for values in (
            [run.loss.name for run in plan],
            [run.seed for run in plan],
            [run.model.name for run in plan],
            [run.data.label for run in plan],
            [counted(run.optim.epochs, "epoch") for run in plan],
        )
    )
    swept = "".join(f" x {key} {', '.join(values)}" for key, values in _swept(plan).items())
    what = f"{counted(len(plan), 'run')} = losses {losses} x seeds {seeds}{swept}; {models}, {data}, {epochs}"
    print(f"{plan[0].experiment}: {what}")


def labels(plan: Sequence[RunSettings]) -> dict[str, str]:
    """What tells runs of a sweep over settings apart, in brackets, by the run's name; empty where loss and seed do."""
    keys = _swept(plan)
    settings = {run.run: flatten(run.identity()) for run in plan if keys}
    own = {run: [f"{key}={of_run[key]}" for key in keys if key in of_run] for run, of_run in settings.items()}
    return {run.run: f" ({', '.join(own[run.run])})" if keys else "" for run in plan}


def list_plan(plan: Sequence[RunSettings], execution: Execution) -> None:
    """Print what a plan would train, resume and skip: the settings that all runs share, then each run and its own."""
    announce(plan)
    settings = [flatten(run.identity()) for run in plan]
    shared = {key: value for key, value in settings[0].items() if all(s.get(key) == value for s in settings)}
    print("\n".join(f"  {key}={value}" for key, value in shared.items()))
    for run, own in zip(plan, settings, strict=True):
        found = read_run(folder_of(run, execution))
        epochs = found.progress.epoch if found.progress else 0
        what = {
            "finished": "skipped: has finished",
            "failed": "trained again: has failed" if execution.retry_failed else "skipped: has failed",
            "running": "skipped: is trained elsewhere at present",
            "interrupted": f"resumed after {counted(epochs, 'epoch')}",
        }.get(found.state, "trained")
        differing = ", ".join(f"{key}={value}" for key, value in own.items() if key not in shared)
        print(f"{run.run}: {what}" + f" ({differing})" * bool(differing))


def left_to_do(plan: Sequence[RunSettings], execution: Execution, *, where: str | None) -> list[RunSettings]:
    """The runs without a record, and the failed ones where they are to be run again.

    `where` they will be trained; with it, the plan and the runs that are done are printed.

    Raises:
        UserError: a record is damaged.
    """
    records = read_records(plan, execution)
    again = {name for name, record in records.items() if record.status == "failed" and execution.retry_failed}
    left = [run for run in plan if run.run not in records or run.run in again]
    if where is not None:
        announce(plan)
        named = labels(plan)
        for name, record in records.items():
            without = execution.keep_weights and WEIGHTS not in record.files
            if record.status == "finished":
                hint = (
                    " (its weights were not kept; to have them, train it again in another results_dir)"
                    * without
                )
                print(f"{name}{named[name]}: finished with Top-1 {record.top1:.2f} %; skipped{hint}")
            elif name not in again:
                print(f"{name}{named[name]}: has failed; skipped (--retry-failed runs it again)")
        done = [record for name, record in records.items() if name not in again]
        of_commit = Counter(record.provenance.commit for record in done if record.status == "finished")
        if other := made_with_other_code(of_commit):
            made = counted(sum(of_commit[commit] for commit in other), "finished run")
            commits = ", ".join(short_commit(commit, False) for commit in other)
            print(
                f"made with other training code (commit {commits}): {made}; to train anew, name another results_dir"
            )
        print(f"{len(plan) - len(left)} of {len(plan)} are done, {len(left)} to do{where}", flush=True)
    return left


def say_ended(record: Record, label: str) -> None:
    """Say how a run ended, above the progress bars."""
    if record.failure is not None:
        step = f", step {record.failure.step}" if record.failure.step >= 0 else ""  # an evaluation has none
        place = f"epoch {record.failure.epoch}{step}"
        tqdm.write(f"{record.run}{label}: failed in {place}: {record.failure.reason}", file=sys.stderr)
    else:
        tqdm.write(f"{record.run}{label}: Top-1 {record.top1:.2f} %, Top-5 {record.top5:.2f} %")


def conclude(plan: Sequence[RunSettings], records: Mapping[str, Record]) -> None:
    """Say what has come of a plan: the failed runs, then mean ± standard deviation wherever two seeds have finished.

    Raises:
        SystemExit: with status 1 if runs failed.
    """
    failed = [record.run for record in records.values() if record.status == "failed"]
    if failed:
        print(
            f"{len(failed)} of {counted(len(plan), 'run')} failed: {', '.join(failed)}; --retry-failed runs them again",
            file=sys.stderr,
        )
    named = labels(plan)
    groups: dict[str, list[RunSettings]] = {}
    for run in plan:
        groups.setdefault(f"{run.loss.name}-{run.model.name}{named[run.run]}", []).append(run)
    for name, runs in groups.items():
        ended = [records[run.run] for run in runs if run.run in records and run.run not in failed]
        if len(ended) > 1:
            scores = ([record.top1 or 0.0 for record in ended], [record.top5 or 0.0 for record in ended])
            top1, top5 = (f"{mean(score):.2f} ± {stdev(score):.2f} %" for score in scores)
            print(f"{name}: Top-1 {top1}, Top-5 {top5} ({len(ended)} of {len(runs)} seeds)", flush=True)
    if failed:
        raise SystemExit(1)


class SweepProgress:
    """One line for the whole sweep until its `bar` is closed: a bar on a terminal, else a line a minute on stderr.

    `epochs_left` of the epochs of the plan's runs are still to do at the start.
    """

    def __init__(self, plan: Sequence[RunSettings], epochs_left: float) -> None:
        self._plan = plan
        self._epochs = sum(run.optim.epochs for run in plan)
        self._left_at_start = epochs_left
        self._begun: float | None = None
        self._is_terminal = sys.stderr.isatty()
        self._shown = -math.inf
        self._has_warned = False
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
        """Do not count these epochs of a run as trained in the time that is measured: those before its second step."""
        self._left_at_start -= epochs
        self._begun = self._begun or time.monotonic()

    def show(self, runs_done: int, epochs_left: float) -> None:
        """Show how many runs are done and how long the rest will take, if the last time was a while ago."""
        now = time.monotonic()
        if self._begun is None or now - self._shown < (BAR_SECONDS if self._is_terminal else LOG_SECONDS):
            return
        trained = self._left_at_start - epochs_left
        if trained <= 0 or now - self._begun < (BAR_SECONDS if self._is_terminal else FIRST_LINE_SECONDS):
            return
        self._shown = now
        seconds = round(epochs_left * (now - self._begun) / trained)
        left = f"{timedelta(seconds=seconds)} left"
        name = self._plan[0].experiment
        if seconds > DAY and now - self._begun > FIRST_LINE_SECONDS and not self._has_warned:
            self._has_warned = True
            tqdm.write(f"{name}: {left} on this machine; {QUICKER}", file=sys.stderr)
        done = f"{name}: {runs_done} of {counted(len(self._plan), 'run')} done"
        if self._is_terminal:
            self.bar.n = self._epochs - epochs_left
            self.bar.set_description_str(done, refresh=False)
            self.bar.set_postfix_str(left)
        else:
            share = 1 - epochs_left / self._epochs
            print(f"{done}, {share:.0%} of the epochs, {left}", file=sys.stderr, flush=True)


def _swept(runs: Sequence[RunSettings]) -> dict[str, list[str]]:
    """The settings beside loss and seed in which the runs differ, each with its values."""
    values: dict[str, dict[str, None]] = {}
    for *_, difference in differences([(run.loss.name, run.identity()) for run in runs]):
        for key, pair in difference.items():
            values.setdefault(key, {}).update(dict.fromkeys(pair))
    return {key: list(of_key) for key, of_key in values.items()}
