"""How many runs at once train fastest on this device: measured with the real step, and kept under `outputs/`."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from anchorloss.config.settings import RunSettings
from anchorloss.device import describe, slug
from anchorloss.errors import UserError
from anchorloss.runs.atomic import write_results
from anchorloss.runs.reading import read_file
from anchorloss.sweep.lockstep import SideBySide, cores
from anchorloss.training import evaluation
from anchorloss.training.context import RunContext
from anchorloss.training.trainer import Trainer

FOLDER = Path("outputs") / "widths"
# How long each number of runs is measured, and on how many images an evaluation is.
SECONDS = 4.0
EVALUATION_IMAGES = 500
MOST_ON_GPU = 32
# A number of runs that is slower than the best so far by more than this ends the search.
_SLOWER = 0.95
_SHARE_OF_MEMORY = 0.9


@dataclass(frozen=True)
class Width:
    """So many runs at once on a device, each with so many torch threads on a CPU (0 on a GPU)."""

    runs: int
    threads: int


@dataclass(frozen=True)
class Speed:
    """What was measured at a width.

    `step` and `evaluation` are the seconds in which every run trains one full batch, or evaluates the whole evaluation
    set; `start` those that a run's first step takes longer than the next, with building the run; `memory` is in bytes,
    that of the process on a CPU and that of the device on a GPU.
    """

    width: Width
    step: float
    evaluation: float
    start: float
    memory: int

    @property
    def steps_per_second(self) -> float:
        """Steps a second of all runs together."""
        return self.width.runs / self.step


def widths(device: torch.device, threads: int, runs: int) -> list[Width]:
    """The widths worth measuring for `runs` runs: 1, 2, 4, ... on a GPU, or as the cores allow.

    Args:
        device: Where the runs train.
        threads: The torch threads of each run on a CPU; 0: one run with all, and several with one each.
        runs: How many runs there are to train.
    """
    if device.type != "cpu":
        return [Width(count, 0) for count in _powers(min(runs, MOST_ON_GPU if device.type == "cuda" else 1))]
    each = threads or 1
    found = [Width(count, each) for count in _powers(min(runs, max(1, cores() // each)))]
    everything = torch.get_num_threads()
    return found if threads or everything == 1 else [Width(1, everything), *found]


def measure(settings: RunSettings, context: RunContext, tried: Sequence[Width]) -> list[Speed]:
    """Train and evaluate at each of these widths for some seconds, until memory or speed says that more is no use.

    Returns:
        A `Speed` for every width that was measured, in the same order; at least the first.
    """
    found: list[Speed] = []
    trainers: list[Trainer] = []
    start = 0.0
    before = _memory_used(context.device)
    for width in tried:
        if len(trainers) < width.runs:
            taken = _memory_used(context.device) - before
            more = taken / max(len(trainers), 1) * (width.runs - len(trainers))
            if found and more > _SHARE_OF_MEMORY * _memory_free(context.device):
                break
        torch.set_num_threads(width.threads or torch.get_num_threads())
        begun = time.perf_counter()
        built = width.runs - len(trainers)
        for _ in range(built):
            trainer = Trainer(
                replace(settings, seed=len(trainers)),
                context.training,
                context.device,
                compile=context.compile,
            )
            trainer.start_epoch(0)
            trainers.append(trainer)
            _step(trainer)
            trainer.wait()
        if built > 0:
            first, again = time.perf_counter() - begun, time.perf_counter()
            for trainer in trainers[-built:]:
                _step(trainer)
                trainer.wait()
            start = max(first - (time.perf_counter() - again), 0) / built
        found.append(_measure(width, trainers[: width.runs], context, start))
        best = max(speed.steps_per_second for speed in found if speed.width.threads == width.threads)
        if found[-1].steps_per_second < _SLOWER * best:
            break
    return found


def _measure(width: Width, trainers: list[Trainer], context: RunContext, start: float) -> Speed:
    side_by_side = SideBySide(context.device, width.threads or torch.get_num_threads())
    images = context.evaluation
    part = replace(images, images=images.images[:EVALUATION_IMAGES], labels=images.labels[:EVALUATION_IMAGES])

    def step(rounds: int) -> float:
        """Seconds of one of so many rounds, by the share of a full batch that was trained."""
        begun = time.perf_counter()
        batches = sum(sum(side_by_side.each(_step, trainers)) for _ in range(rounds)) / len(trainers)
        for trainer in trainers:
            trainer.wait()
        return (time.perf_counter() - begun) / batches

    def evaluate(run: tuple[Trainer, evaluation.Prediction]) -> None:
        trainer, predict = run
        evaluation.measure(predict(), trainer.loss, part.labels)

    step(2)
    rounds = min(max(math.ceil(SECONDS / step(2)), 3), 1000)
    seconds_of_step = step(rounds)
    runs = [
        (trainer, evaluation.Prediction(trainer.network, part, trainer.settings.precision, trainer.stream))
        for trainer in trainers
    ]
    # On CUDA the second evaluation captures what the later ones replay.
    for _ in range(2):
        side_by_side.each(evaluate, runs)
    begun = time.perf_counter()
    for _ in range(3):
        side_by_side.each(evaluate, runs)
    seconds_of_part = (time.perf_counter() - begun) / 3
    seconds_of_evaluation = seconds_of_part * len(images.labels) / len(part.labels)
    return Speed(width, seconds_of_step, seconds_of_evaluation, start, _memory_used(context.device))


def keep_fastest(settings: RunSettings, context: RunContext, runs: int) -> None:
    """Keep how many runs at once were fastest on this device, for `fastest`.

    Raises:
        RunError: the file cannot be written.
    """
    path = _path(context.device)
    kept = {**_read(path), _key(settings, compile=context.compile): runs}
    write_results(path.parent, {path.name: json.dumps(kept, indent=2, sort_keys=True).encode() + b"\n"})


def fastest(settings: RunSettings, device: torch.device, *, compile: bool) -> int | None:
    """How many runs like this one train fastest at once on this device; None if that was not measured."""
    return _read(_path(device)).get(_key(settings, compile=compile))


def _path(device: torch.device) -> Path:
    return FOLDER / f"{slug(describe(device))}.json"


def _key(settings: RunSettings, *, compile: bool) -> str:
    """What a step's speed depends on, the device aside."""
    model = settings.model
    return (
        f"{model.name}, shortcut {model.shortcut}, batch {settings.optim.batch_size}, "
        f"{settings.precision}{', compiled' * compile}"
    )


def _read(path: Path) -> dict[str, int]:
    """What was kept; nothing if the file is missing or is not such a file, since it only saves a measurement."""
    try:
        kept = json.loads(read_file(path, largest=1 << 20) or b"{}")
    except (UserError, ValueError, RecursionError):
        return {}
    items = kept.items() if isinstance(kept, dict) else ()
    return {key: runs for key, runs in items if type(runs) is int and 1 <= runs <= MOST_ON_GPU}


def _powers(most: int) -> Iterator[int]:
    """1, 2, 4, ... up to `most`, which comes last."""
    count = 1
    while count < most:
        yield count
        count *= 2
    yield most


def _step(trainer: Trainer) -> float:
    """Train the next batch, and return which share of a full one it is."""
    if trainer.step_in_epoch == trainer.steps:
        trainer.start_epoch(trainer.epoch + 1)
    size = trainer.settings.optim.batch_size
    left = len(trainer.images.labels) - trainer.step_in_epoch * size
    trainer.train_step()
    return min(left / size, 1.0)


def _memory_used(device: torch.device) -> int:
    """The most memory so far, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return 1024 * _kibibytes("/proc/self/status", "VmHWM")


def _memory_free(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return 1024 * _kibibytes("/proc/meminfo", "MemAvailable") or math.inf


def _kibibytes(path: str, field: str) -> int:
    """A line of Linux's memory statistics; 0 elsewhere."""
    if Path(path).exists():
        for line in Path(path).read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1])
    return 0
