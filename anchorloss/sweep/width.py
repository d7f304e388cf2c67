"""How many runs at once train fastest on this device: measured with the real step, and kept under `outputs/`."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Ge, Le
from pydantic import TypeAdapter, ValidationError

from anchorloss.config.identity import RunSettings
from anchorloss.device import describe, free_memory, peak_memory, reset_peak_memory, slug
from anchorloss.errors import UserError
from anchorloss.runs.files import write_results
from anchorloss.runs.reading import read_file
from anchorloss.sweep.lockstep import SideBySide, cores
from anchorloss.training import evaluation
from anchorloss.training.context import RunContext
from anchorloss.training.evaluation import Prediction
from anchorloss.training.trainer import Trainer

FOLDER = Path("outputs") / "widths"
# How long each number of runs is measured, and on how many images an evaluation is.
SECONDS = 4.0
EVALUATION_IMAGES = 500
MOST_ON_GPU = 32
# A number of runs that is slower than the best so far by more than this ends the search.
_SLOWER = 0.95
_SHARE_OF_MEMORY = 0.9
_KEPT = TypeAdapter(dict[str, Annotated[int, Ge(1), Le(MOST_ON_GPU)]])


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

    `threads` are the torch threads of each run on a CPU; 0: one run with all, and several with one each.
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
    # They live as long as the trainers: torch may free the workspace of a stream with a graph that was captured on it.
    predictions: list[Prediction] = []
    images = context.evaluation
    part = replace(images, images=images.images[:EVALUATION_IMAGES], labels=images.labels[:EVALUATION_IMAGES])
    start = 0.0
    reset_peak_memory(context.device)
    before = peak_memory(context.device)
    for width in tried:
        missing = width.runs - len(trainers)
        if trainers and missing > 0:
            more = (peak_memory(context.device) - before) / len(trainers) * missing
            if more > _SHARE_OF_MEMORY * free_memory(context.device):
                break
        torch.set_num_threads(width.threads or torch.get_num_threads())
        if missing > 0:
            begun = time.perf_counter()
            for seed in range(len(trainers), width.runs):
                run = replace(settings, seed=seed)
                trainers.append(Trainer(run, context.training, context.device, compile=context.compile))
                trainers[-1].start_epoch(0)
                predictions.append(
                    Prediction(trainers[-1].network, part, settings.precision, trainers[-1].stream)
                )
                _step(trainers[-1])
                trainers[-1].wait()
            first, again = time.perf_counter() - begun, time.perf_counter()
            for trainer in trainers[-missing:]:
                _step(trainer)
                trainer.wait()
            start = max(first - (time.perf_counter() - again), 0) / missing
        found.append(_measure(width, trainers[: width.runs], predictions[: width.runs], context, start))
        best = max(speed.steps_per_second for speed in found if speed.width.threads == width.threads)
        if found[-1].steps_per_second < _SLOWER * best:
            break
    return found


def _measure(
    width: Width, trainers: list[Trainer], predictions: list[Prediction], context: RunContext, start: float
) -> Speed:
    side_by_side = SideBySide(context.device, width.threads or torch.get_num_threads())
    settings, labels = trainers[0].settings, context.evaluation.labels
    part = labels[:EVALUATION_IMAGES]

    def step(rounds: int) -> float:
        """Seconds in which every run trains a full batch, over so many rounds."""
        begun = time.perf_counter()
        trained = sum(sum(side_by_side.each(_step, trainers)) for _ in range(rounds))
        for trainer in trainers:
            trainer.wait()
        return (time.perf_counter() - begun) * settings.optim.batch_size * len(trainers) / trained

    def evaluate(rounds: int) -> float:
        """Seconds in which every run evaluates the part, over so many rounds."""
        begun = time.perf_counter()
        for _ in range(rounds):
            side_by_side.each(
                lambda predict: evaluation.measure(predict(), trainers[0].loss, part), predictions
            )
        return (time.perf_counter() - begun) / rounds

    step(2)
    seconds_of_step = step(min(max(math.ceil(SECONDS / step(2)), 3), 1000))
    evaluate(2)  # on CUDA the second captures what the later ones replay
    seconds_of_evaluation = evaluate(3) * len(labels) / len(part)
    return Speed(width, seconds_of_step, seconds_of_evaluation, start, peak_memory(context.device))


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
    arguments = f", {json.dumps(model.arguments, sort_keys=True)}" if model.arguments else ""
    return (
        f"{model.name}, shortcut {model.shortcut}{arguments}, batch {settings.optim.batch_size}, "
        f"{settings.precision}{', compiled' * compile}"
    )


def _read(path: Path) -> dict[str, int]:
    """What was kept; nothing if the file is missing or is not such a file, since it only saves a measurement."""
    try:
        return _KEPT.validate_json(read_file(path, largest=1 << 20) or b"{}", strict=True)
    except (UserError, ValidationError):
        return {}


def _powers(most: int) -> list[int]:
    """1, 2, 4, ... up to `most`, which comes last."""
    return [*(2**power for power in range((most - 1).bit_length())), most]


def _step(trainer: Trainer) -> int:
    """Train the next batch, of this or the next epoch, and return its number of images.

    An epoch's last batch, which may not be full, is left out: on CUDA its first step captures a graph of its own.
    """
    if trainer.step_in_epoch >= max(trainer.steps - 1, 1):
        trainer.start_epoch(trainer.epoch + 1)
    return trainer.train_step()
