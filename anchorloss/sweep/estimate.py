"""How long a plan of runs will take on this machine, by how many of them train at once: `train.py --plan`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from anchorloss.analysis.markdown import markdown_table
from anchorloss.analysis.status import duration
from anchorloss.config.identity import RunSettings
from anchorloss.config.settings import Execution
from anchorloss.device import resolve_device
from anchorloss.runs.folder import read_progress, read_record, run_folder
from anchorloss.sweep.executor import prepare_torch
from anchorloss.sweep.messages import announce
from anchorloss.sweep.width import Speed, keep_fastest, measure, widths
from anchorloss.terminal import counted, plain_text
from anchorloss.training.context import RunContext


@dataclass(frozen=True)
class _Work:
    """Runs that differ in nothing that decides their speed: an example, and what each has left to do."""

    settings: RunSettings
    context: RunContext
    epochs_left: list[float]


def estimate(plan: Sequence[RunSettings], execution: Execution, begun: float) -> None:
    """Measure how fast the runs of the plan that have no record train, and print what is left of it.

    Nothing is trained to an end and nothing written but the fastest number of runs at once, which `concurrent=auto` uses
    on a GPU. `begun` is when the command began, by `time.monotonic()`.

    Raises:
        UserError: the data are missing or damaged, or the device is not there.
    """
    device = resolve_device(execution.device)
    prepare_torch(execution, device)
    work = _work(plan, execution, device)
    left = sum(len(each.epochs_left) for each in work)
    announce(plan, left, device)
    if not left:
        print("Nothing is left to train.")
        return
    startup = time.monotonic() - begun
    tried = widths(device, execution.threads, left)
    measured = [measure(each.settings, each.context, tried) for each in work]
    # A width that one kind of run had no memory for is no width for the plan.
    common = min(map(len, measured))
    totals = [
        startup
        + sum(_seconds(each, speeds[: index + 1]) for each, speeds in zip(work, measured, strict=True))
        for index in range(common)
    ]
    best = min(range(common), key=totals.__getitem__)
    for each in work:
        keep_fastest(each.settings, each.context, tried[best].runs)
    print(plain_text(_table(work, measured, totals, best)))
    memory = max(speeds[best].memory for speeds in measured)
    width = tried[best]
    how = f"threads={width.threads} concurrent={width.runs}" if device.type == "cpu" else "concurrent=auto"
    print(
        f"\nFastest: {counted(width.runs, 'run')} at once"
        + f" with {counted(width.threads, 'thread')} each" * (width.threads > 0)
        + f": {duration(totals[best])} ({totals[best]:.0f} s) for {counted(left, 'run')}, {_gibibytes(memory)}.\n"
        f"To train like that, give the command with {how} in place of --plan."
    )


def _work(plan: Sequence[RunSettings], execution: Execution, device: torch.device) -> list[_Work]:
    found: dict[str, _Work] = {}
    contexts: dict[str, RunContext] = {}
    for settings in plan:
        folder = run_folder(execution.results_dir, settings.experiment, settings.run)
        record = read_record(folder)
        if record is not None and not (record.status == "failed" and execution.retry_failed):
            continue
        data = repr(settings.data)
        if data not in contexts:
            contexts[data] = RunContext.load(settings.data, execution, device)
        optim = settings.optim
        key = repr((settings.model, data, settings.precision, optim.batch_size, optim.evaluate_every))
        work = found.setdefault(key, _Work(settings, contexts[data], []))
        progress = read_progress(folder)
        work.epochs_left.append(optim.epochs - (progress.epoch if progress is not None else 0))
    return list(found.values())


def _seconds(work: _Work, speeds: Sequence[Speed]) -> float:
    """How long the runs take at the last of these widths, `speeds[-1]`."""
    width = speeds[-1].width
    batches = len(work.context.training.labels) / work.settings.optim.batch_size
    # The seconds in which that many runs train one epoch each and evaluate.
    known = {
        speed.width.runs: batches * speed.step + speed.evaluation / work.settings.optim.evaluate_every
        for speed in speeds
        if speed.width.threads == width.threads
    }
    starts = speeds[-1].start * len(work.epochs_left) / width.runs
    return starts + makespan(
        work.epochs_left, width.runs, lambda runs: float(np.interp(runs, list(known), list(known.values())))
    )


def makespan(epochs_left: Sequence[float], width: int, seconds_of_epoch: Callable[[int], float]) -> float:
    """The seconds until the last of several runs ends, if `width` train at once and the next begins when one ends.

    `epochs_left` are those of each run, in the order in which they begin; `seconds_of_epoch` the seconds in which n runs
    at once train an epoch each, by n.
    """
    waiting = list(epochs_left)
    live: list[float] = []
    total = 0.0
    while waiting or live:
        while waiting and len(live) < width:
            live.append(waiting.pop(0))
        done = min(live)
        total += done * seconds_of_epoch(len(live))
        live = [epochs - done for epochs in live if epochs > done]
    return total


def _table(work: Sequence[_Work], measured: Sequence[list[Speed]], totals: Sequence[float], best: int) -> str:
    threads = ["threads each"] if measured[0][0].width.threads else []
    rows = []
    for index, total in enumerate(totals):
        speeds = [of_work[index] for of_work in measured]
        rates = (
            each.settings.optim.batch_size * speed.steps_per_second
            for each, speed in zip(work, speeds, strict=True)
        )
        rows.append(
            [
                str(speeds[0].width.runs),
                *[str(speeds[0].width.threads) for _ in threads],
                ", ".join(f"{rate:,.0f}" for rate in rates),
                _gibibytes(max(speed.memory for speed in speeds)),
                duration(total),
                "fastest" if index == best else "",
            ]
        )
    return markdown_table(["runs at once", *threads, "images/s", "memory", "time left", ""], rows, "rr")


def _gibibytes(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
