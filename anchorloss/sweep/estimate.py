"""How long a plan of runs will take on this machine, by how many of them train at once: `train.py --plan`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from anchorloss.analysis.markdown import markdown_table
from anchorloss.analysis.status import duration
from anchorloss.config.settings import Execution, RunSettings
from anchorloss.device import resolve_device
from anchorloss.runs import store
from anchorloss.sweep.executor import prepare_torch
from anchorloss.sweep.messages import announce
from anchorloss.sweep.width import Speed, Width, keep_fastest, measure, widths
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
    on a GPU.

    Args:
        plan: The runs.
        execution: Where and how they would be trained.
        begun: When the command began, by `time.monotonic()`.

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
        folder = store.run_folder(execution.results_dir, settings.experiment, settings.run)
        record = store.read_record(folder)
        if record is not None and not (record.status == "failed" and execution.retry_failed):
            continue
        data = repr(settings.data)
        if data not in contexts:
            contexts[data] = RunContext.load(settings.data, execution, device)
        optim = settings.optim
        key = repr((settings.model, data, settings.precision, optim.batch_size, optim.evaluate_every))
        work = found.setdefault(key, _Work(settings, contexts[data], []))
        work.epochs_left.append(optim.epochs - _epochs_done(folder))
    return list(found.values())


def _epochs_done(folder: Path) -> float:
    progress = store.read_progress(folder)
    return progress.epoch if progress is not None else 0


def _seconds(work: _Work, speeds: Sequence[Speed]) -> float:
    """How long the runs take at the last of these widths, `speeds[-1]`."""
    batches = len(work.context.training.labels) / work.settings.optim.batch_size
    width = speeds[-1].width

    def of_epoch(runs: int) -> float:
        """Seconds in which `runs` runs train one epoch each and evaluate."""
        speed = _at(speeds, Width(runs, width.threads))
        return batches * speed[0] + speed[1] / work.settings.optim.evaluate_every

    starts = speeds[-1].start * len(work.epochs_left) / width.runs
    return starts + makespan(work.epochs_left, width.runs, of_epoch)


def makespan(epochs_left: Sequence[float], width: int, seconds_of_epoch: Callable[[int], float]) -> float:
    """When the last of several runs ends, if `width` of them train at once and the next begins when one ends.

    Args:
        epochs_left: The epochs that each run has to train, in the order in which they begin.
        width: How many train at once.
        seconds_of_epoch: The seconds in which n runs at once train an epoch each, by n.
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


def _at(speeds: Sequence[Speed], width: Width) -> tuple[float, float]:
    """Seconds of a full batch and of an evaluation at a width, between the two measured ones next to it."""
    known = sorted(
        (speed for speed in speeds if speed.width.threads == width.threads),
        key=lambda speed: speed.width.runs,
    )
    above = next(speed for speed in known if speed.width.runs >= width.runs)
    below = max(
        (speed for speed in known if speed.width.runs <= width.runs),
        key=lambda speed: speed.width.runs,
        default=above,
    )
    span = above.width.runs - below.width.runs
    share = (width.runs - below.width.runs) / span if span else 0.0
    return (
        below.step + share * (above.step - below.step),
        below.evaluation + share * (above.evaluation - below.evaluation),
    )


def _table(work: Sequence[_Work], measured: Sequence[list[Speed]], totals: Sequence[float], best: int) -> str:
    rows = []
    for index, total in enumerate(totals):
        width = measured[0][index].width
        rates = [
            each.settings.optim.batch_size * speeds[index].steps_per_second
            for each, speeds in zip(work, measured, strict=True)
        ]
        memory = max(speeds[index].memory for speeds in measured)
        rows.append(
            [
                str(width.runs),
                *([str(width.threads)] if width.threads else []),
                ", ".join(f"{rate:,.0f}" for rate in rates),
                _gibibytes(memory),
                duration(total),
                "fastest" if index == best else "",
            ]
        )
    threads = ["threads each"] if measured[0][0].width.threads else []
    return markdown_table(["runs at once", *threads, "images/s", "memory", "time left", ""], rows, "rr")


def _gibibytes(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
