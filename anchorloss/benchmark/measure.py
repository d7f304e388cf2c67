"""What is measured: the ladder, several runs at once, growing work; each variant in turns with the others."""

from __future__ import annotations

import itertools
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import torch

from anchorloss.benchmark import ceilings, operators
from anchorloss.benchmark.counting import count_work
from anchorloss.benchmark.ladder import Variant, rungs
from anchorloss.benchmark.rows import Row
from anchorloss.benchmark.worker import Worker
from anchorloss.device import choose_convolutions, computes_bf16, describe
from anchorloss.errors import RunError
from anchorloss.runs import provenance
from anchorloss.sweep.side_by_side import cores

LEAST_STEPS, MOST_STEPS = 2, 50


@dataclass(frozen=True)
class Effort:
    """How long to measure: `rounds` turns of about `seconds` each, but none begun that would end after `deadline`.

    `deadline` is in seconds of `time.monotonic()`. Starting the loops, with their compilation, may take two thirds of the
    time until then; a loop that has not started by then is left out. One round is measured in any case.
    """

    rounds: int
    seconds: float
    deadline: float = math.inf


@dataclass(frozen=True)
class Measured:
    """A variant's `rates` in images a second, one a round; `memory` in MiB."""

    variant: Variant
    rates: list[float]
    first_step_seconds: float
    memory: float


def in_turns(
    variants: Sequence[Variant], effort: Effort, say: Callable[[str], None] = print
) -> Iterator[list[Measured]]:
    """Measure the variants in turns, every second round in the opposite order, all processes alive throughout.

    Yields:
        After each round, what has been measured so far, in the order of `variants`.

    Raises:
        RunError: a loop's process died after its first step, or no loop does its first.
    """
    begun = time.monotonic()
    start_deadline = begun + 2 / 3 * (effort.deadline - begun)
    with ExitStack() as stack:
        workers, died = [], []
        for variant in variants:
            say(f"  starting {variant.model}, batch {variant.batch_size}: {variant.name}")
            worker = stack.enter_context(closing(Worker(variant, start_deadline)))
            if worker.has_started:
                workers.append(worker)
            elif worker.has_died:
                say(f"  {variant.name} does not start here (see above); left out")
                died.append(f"{variant.name} of {variant.model}")
            else:
                say(f"  no time to start {variant.name}")
        if died and not workers:
            raise RunError(f"{', '.join(died)}: cannot be started; see above")
        steps = [
            min(MOST_STEPS, max(LEAST_STEPS, round(effort.seconds / worker.seconds(1, 1))))
            for worker in workers
        ]
        rates: list[list[float]] = [[] for _ in workers]
        longest = 0.0
        for turn in range(effort.rounds if workers else 0):
            round_begun = time.monotonic()
            if turn > 0 and round_begun + longest > effort.deadline:
                say("  no time for more rounds")
                break
            order = list(zip(workers, steps, rates, strict=True))
            for worker, count, rate in order if turn % 2 == 0 else reversed(order):
                seconds = worker.seconds(worker.prefetched + 1, count)
                rate.append(count * worker.variant.batch_size * worker.variant.runs / seconds)
            longest = max(longest, time.monotonic() - round_begun)
            say(f"  round {turn + 1} of {effort.rounds}")
            yield [
                Measured(worker.variant, list(rate), worker.first_step_seconds, worker.memory())
                for worker, rate in zip(workers, rates, strict=True)
            ]


def measure_ladder(
    model: str, device: torch.device, runs: int, effort: Effort, *, compile: bool
) -> Iterator[list[Row]]:
    """Every rung up to `runs` runs at once, with its ratio to the textbook loop; yields all rows after each round."""
    for found in in_turns(rungs(model, str(device), computes_bf16(device), runs, compile), effort):
        rows = []
        textbook = next((each for each in found if each.variant.name == "textbook"), None)
        for each in found:
            rows += _rows("ladder", each)
            row = partial(each.variant.row, "ladder")
            if textbook is not None:
                ratios = [ours / other for ours, other in zip(each.rates, textbook.rates, strict=True)]
                rows.append(row("ratio to the textbook loop", "", ratios))
            work = count_work(model, bf16=each.variant.bf16)
            rate = statistics.median(each.rates)
            rows.append(row("operations", "GFLOP/s", [rate * work.operations / 1e9]))
            rows.append(row("bytes", "GB/s", [rate * work.bytes / 1e9]))
        yield rows


def measure_concurrent(
    model: str, device: torch.device, counts: Sequence[int], effort: Effort
) -> Iterator[list[Row]]:
    """Our loop with more and more runs at once; yields the rows so far after each round.

    On a CPU each run has one thread, and one run with all threads is measured too.
    """
    best = _ours(model, device)
    variants = [replace(best, name="one run, all threads")] if device.type == "cpu" else []
    threads = 1 if device.type == "cpu" else 0
    variants += [replace(best, name=f"{count} at once", runs=count, threads=threads) for count in counts]
    for found in in_turns(variants, effort):
        yield [row for each in found for row in _rows("concurrent", each)]


def measure_operators(models: Sequence[str], effort: Effort) -> list[Row]:
    """Where our step's time goes on one thread of the CPU."""
    variants = (replace(_ours(model, torch.device("cpu")), threads=1) for model in models)
    return [row for each in variants for row in operators.measure_operators(each, effort.rounds)]


def measure_growth(
    models: Sequence[str], batch_sizes: Sequence[int], device: torch.device, effort: Effort
) -> Iterator[list[Row]]:
    """One run by our loop, deeper and with larger batches; yields the rows so far after each round."""
    variants = [
        replace(_ours(model, device), name="ours", batch_size=size)
        for model in models
        for size in batch_sizes
    ]
    for found in in_turns(variants, effort):
        yield [row for each in found for row in _rows("growth", each)]


def measure_ceilings(device: torch.device, effort: Effort) -> list[Row]:
    """What the device does at best, in turns."""
    choose_convolutions()
    found = [each for each in ceilings.ceilings(device) if computes_bf16(device) or "bf16" not in each.name]
    samples: dict[str, list[float]] = {each.name: [] for each in found}
    for _ in range(effort.rounds):
        for each in found:
            samples[each.name].append(ceilings.measure(each, device, effort.seconds / 4))
    return [
        Row.of("ceiling", "rate", samples[each.name], variant=each.name, unit=each.unit) for each in found
    ]


def work_rows(models: Sequence[str]) -> list[Row]:
    """Operations and bytes of an image's training step, counted."""
    rows = []
    for model, precision in itertools.product(models, ("fp32", "bf16")):
        work = count_work(model, bf16=precision == "bf16")
        row = partial(Row.of, "work", model=model, precision=precision)
        rows.append(row("operations", [work.operations / 1e6], unit="MFLOP an image"))
        rows.append(row("bytes", [work.bytes / 1e6], unit="MB an image"))
    return rows


def provenance_rows(device: torch.device) -> list[Row]:
    """Where, when and with which versions it was measured."""
    said = {
        "device": describe(device),
        "cores": str(cores()),
        "host": provenance.host(),
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": provenance.short_commit(*provenance.commit()),
        **provenance.versions(),
    }
    return [Row("provenance", key, variant=value) for key, value in said.items()]


def load_row(when: str) -> Row:
    """The machine's load average of the last minute: what else ran there."""
    load = f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown"
    return Row("provenance", f"load average {when}", variant=load)


def _ours(model: str, device: torch.device) -> Variant:
    ladder = rungs(model, str(device), computes_bf16(device), 1, False)
    return replace(ladder[-1], threads=0)


def _rows(section: str, each: Measured) -> list[Row]:
    images = each.variant.batch_size * each.variant.runs
    row = partial(each.variant.row, section)
    return [
        row("images", "images/s", each.rates),
        row("step", "ms", [1000 * images / rate for rate in each.rates]),
        row("first step", "s", [each.first_step_seconds]),
        row("memory", "MiB", [each.memory]),
    ]
