"""What is measured: the ladder, several runs at once, growing work; each variant in turns with the others."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import torch

from anchorloss.benchmark import ceilings, operators
from anchorloss.benchmark.counting import count_work
from anchorloss.benchmark.ladder import Variant, rungs
from anchorloss.benchmark.rows import Row, spread
from anchorloss.benchmark.worker import Worker
from anchorloss.device import computes_bf16, describe
from anchorloss.runs import provenance
from anchorloss.sweep.lockstep import cores

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
        RunError: a loop's process died.
    """
    begun = time.monotonic()
    start_deadline = begun + 2 / 3 * (effort.deadline - begun)
    with ExitStack() as stack:
        workers = []
        for variant in variants:
            say(f"  starting {variant.model}, batch {variant.batch_size}: {variant.name}")
            worker = stack.enter_context(Worker(variant, start_deadline))
            if worker.has_started:
                workers.append(worker)
            else:
                say(f"  no time to start {variant.name}")
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
            order = list(range(len(workers)))
            for place in order if turn % 2 == 0 else reversed(order):
                worker, variant = workers[place], workers[place].variant
                warm = 1 if variant.in_memory else worker.prefetched + 1
                seconds = worker.seconds(warm, steps[place])
                rates[place].append(steps[place] * variant.batch_size * variant.runs / seconds)
            longest = max(longest, time.monotonic() - round_begun)
            say(f"  round {turn + 1} of {effort.rounds}")
            yield [
                Measured(worker.variant, list(rate), worker.first_step_seconds, worker.memory())
                for worker, rate in zip(workers, rates, strict=True)
            ]


def measure_ladder(
    model: str, device: torch.device, runs: int, effort: Effort, *, compile: bool
) -> Iterator[list[Row]]:
    """Every rung from the textbook loop to `runs` runs at once, with its ratio to the textbook loop round by round.

    Yields:
        The rows as they are after each round.
    """
    for found in in_turns(rungs(model, str(device), computes_bf16(device), runs, compile), effort):
        rows = []
        textbook = next((each for each in found if each.variant.name == "textbook"), None)
        for each in found:
            rows += _rows("ladder", each)
            if textbook is not None:
                ratios = [ours / other for ours, other in zip(each.rates, textbook.rates, strict=True)]
                rows.append(_row("ladder", each.variant, "ratio to the textbook loop", "", ratios))
            work = count_work(model, bf16=each.variant.bf16)
            rate = statistics.median(each.rates)
            rows.append(_row("ladder", each.variant, "operations", "GFLOP/s", [rate * work.operations / 1e9]))
            rows.append(_row("ladder", each.variant, "bytes", "GB/s", [rate * work.bytes / 1e9]))
        yield rows


def measure_concurrent(
    model: str, device: torch.device, counts: Sequence[int], effort: Effort
) -> Iterator[list[Row]]:
    """Our loop with more and more runs at once; on a CPU with one thread each, and one run with all threads.

    Yields:
        The rows as they are after each round.
    """
    best = _ours(model, device)
    variants = [replace(best, name="one run, all threads")] if device.type == "cpu" else []
    threads = 1 if device.type == "cpu" else 0
    variants += [replace(best, name=f"{count} at once", runs=count, threads=threads) for count in counts]
    for found in in_turns(variants, effort):
        yield [row for each in found for row in _rows("concurrent", each)]


def measure_operators(models: Sequence[str], effort: Effort) -> list[Row]:
    """Where our step's time goes on one thread of the CPU."""
    device = torch.device("cpu")
    return [
        row
        for model in models
        for row in operators.measure_operators(
            replace(_ours(model, device), runs=1, threads=1), effort.rounds
        )
    ]


def measure_growth(
    models: Sequence[str], batch_sizes: Sequence[int], device: torch.device, effort: Effort
) -> Iterator[list[Row]]:
    """One run by our loop, deeper and with larger batches.

    Yields:
        The rows as they are after each round.
    """
    variants = [
        replace(_ours(model, device), name="ours", batch_size=size)
        for model in models
        for size in batch_sizes
    ]
    for found in in_turns(variants, effort):
        yield [row for each in found for row in _rows("growth", each)]


def measure_ceilings(device: torch.device, effort: Effort) -> list[Row]:
    """What the device does at best, in turns."""
    found = [each for each in ceilings.ceilings(device) if computes_bf16(device) or "bf16" not in each.name]
    samples: dict[str, list[float]] = {each.name: [] for each in found}
    for _ in range(effort.rounds):
        for each in found:
            samples[each.name].append(ceilings.measure(each, device, effort.seconds / 4))
    return [
        Row("ceiling", "rate", variant=each.name, unit=each.unit, **spread(samples[each.name]))  # type: ignore[arg-type]
        for each in found
    ]


def work_rows(models: Sequence[str]) -> list[Row]:
    """Operations and bytes of an image's training step, counted."""
    rows = []
    for model in models:
        for precision in ("fp32", "bf16"):
            work = count_work(model, bf16=precision == "bf16")
            for quantity, unit, value in (
                ("operations", "MFLOP an image", work.operations / 1e6),
                ("bytes", "MB an image", work.bytes / 1e6),
            ):
                rows.append(
                    Row("work", quantity, model=model, precision=precision, unit=unit, **spread([value]))  # type: ignore[arg-type]
                )
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
    variant = each.variant
    images = variant.batch_size * variant.runs
    return [
        _row(section, variant, "images", "images/s", each.rates),
        _row(section, variant, "step", "ms", [1000 * images / rate for rate in each.rates]),
        _row(section, variant, "first step", "s", [each.first_step_seconds]),
        _row(section, variant, "memory", "MiB", [each.memory]),
    ]


def _row(section: str, variant: Variant, quantity: str, unit: str, samples: Sequence[float]) -> Row:
    return Row(
        section,
        quantity,
        variant=variant.name,
        model=variant.model,
        precision=variant.precision,
        batch_size=variant.batch_size,
        runs=variant.runs,
        threads=variant.threads,
        unit=unit,
        **spread(samples),  # type: ignore[arg-type]
    )
