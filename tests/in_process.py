"""Runs trained inside the test process, where a test must stop them at an exact step."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from anchorloss.config.parsing import parse
from anchorloss.config.settings import Execution, RunSettings
from anchorloss.data.dataset import load_dataset
from anchorloss.runs.folder import Record, run_folder
from anchorloss.tracking import Logger
from anchorloss.training.device_data import DeviceData
from anchorloss.training.run import train
from anchorloss.training.trainer import Trainer
from tests.conftest import ROOT, SMALL

# A network that trains for an epoch of three steps in a tenth of a second.
SMALLER = (
    "model.name=small",
    "model.function=tests.training.small.Small",
    "data.training_images=100",
    "data.test_images=100",
    "optim.batch_size=40",
)


def composed(*overrides: str) -> DictConfig:
    """The config as `train.py` composes it from these overrides."""
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return compose("config", list(overrides))


def settings(*overrides: str) -> list[RunSettings]:
    """The runs of the small config with these overrides."""
    return parse(composed(*SMALL, *overrides))[0]


def data_of(run: RunSettings) -> DeviceData:
    """The data that a run of the small config trains on, on the CPU, which is set to one thread and determinism."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    return DeviceData.of(load_dataset(run.data), torch.device("cpu"))


def execution(**changed: Any) -> Execution:
    """How the small config trains: no checkpoint but when it is stopped."""
    return parse(composed(*SMALL, "checkpoint_seconds=1e9"))[1].model_copy(update=changed)


def start(
    run: RunSettings, data: DeviceData, results: Path, **changed: Any
) -> Generator[float, None, Record]:
    """The run's training as a generator, one step at a time; `changed` are fields of its `Execution`."""
    folder = run_folder(results, run.experiment, run.run)
    folder.mkdir(parents=True, exist_ok=True)
    return train(run, folder, data, execution(**changed), Logger())


def finish(steps: Generator[float, None, Record]) -> Record:
    """Drive a training to its end."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def train_epoch_together(trainers: Sequence[Trainer], epoch: int) -> None:
    """Train one epoch of runs on the same data, a step of each in turn."""
    for trainer in trainers:
        trainer.start_epoch(epoch)
    for _ in range(trainers[0].steps):
        for trainer in trainers:
            trainer.train_step()


def files(results: Path, run: RunSettings) -> dict[str, bytes]:
    """The two files beside the record that two equal runs have alike."""
    folder = run_folder(results, run.experiment, run.run)
    return {name: (folder / name).read_bytes() for name in ("history.csv", "predictions.npz")}


@contextmanager
def counted_steps(at_each: Callable[[int], object] = lambda count: None) -> Iterator[SimpleNamespace]:
    """Count the steps that are trained, as `count`, and call `at_each` with it after each."""
    steps = SimpleNamespace(count=0)
    train_step = Trainer.train_step

    def counting(trainer: Trainer) -> None:
        train_step(trainer)
        steps.count += 1
        at_each(steps.count)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", counting)
        yield steps
