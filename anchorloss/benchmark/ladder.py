"""The rungs between the textbook loop and ours, and a loop that stands on any of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor

from anchorloss.benchmark.rows import Row
from anchorloss.benchmark.textbook import TextbookImages, TextbookLoop, textbook_loss
from anchorloss.config.identity import LossSettings, RunSettings
from anchorloss.config.settings import DATA_SETS, DataSettings, ModelSettings, OptimSettings
from anchorloss.data import augmentation
from anchorloss.device import choose_convolutions
from anchorloss.loss import anchor_loss
from anchorloss.sweep.side_by_side import SideBySide
from anchorloss.training.trainer import Trainer, TrainingImages

MEAN, STD = (cast(tuple[float, float, float], tuple(DATA_SETS["cifar100"][key])) for key in ("mean", "std"))
# Pixels do not change the time; this many of them fill no cache that 50,000 would not.
IMAGES = 10_000


@dataclass(frozen=True)
class Variant:
    """One way to train; every field after `batch_size` is a rung, off in the textbook loop.

    `runs` and `threads` are those of `trainer`: how many runs at once, and torch threads for each (0: torch's default).
    """

    name: str
    model: str
    batch_size: int = 128
    device: str = "cpu"
    in_memory: bool = False
    channels_last: bool = False
    bf16: bool = False
    fused: bool = False
    own_loss: bool = False
    trainer: bool = False
    runs: int = 1
    threads: int = 0
    compile: bool = False

    @property
    def precision(self) -> str:
        return "bf16" if self.bf16 else "fp32"

    def row(self, section: str, quantity: str, unit: str, samples: Sequence[float]) -> Row:
        """What was measured of this variant, as a row."""
        shared = ("model", "precision", "batch_size", "runs", "threads")
        fields = {name: getattr(self, name) for name in shared}
        return Row.of(section, quantity, samples, variant=self.name, unit=unit, **fields)


def rungs(model: str, device: str, bf16: bool, runs: int, compile: bool) -> list[Variant]:
    """The ladder from the textbook loop to ours, each rung with all those below it.

    `bf16` is for machines that compute it natively; `runs` is how many the last rung trains at once.
    """
    ladder = [Variant("textbook", model, device=device)]

    def add(name: str, **more: bool | int) -> None:
        ladder.append(replace(ladder[-1], name=name, **more))  # type: ignore[arg-type]

    add("+ batches made in memory", in_memory=True)
    add("+ channels_last", channels_last=True)
    if bf16:
        add("+ bf16", bf16=True)
    add("+ fused SGD", fused=True)
    add("+ our loss", own_loss=True)
    add("+ our step (one CUDA graph)" if device != "cpu" else "+ our step", trainer=True)
    if device == "cpu":
        add(f"+ {runs} runs at once, 1 thread each", runs=runs, threads=1)
    else:
        add(f"+ {runs} runs at once", runs=runs)
    if compile:
        add("+ torch.compile", compile=True)
    return ladder


class PartialLoop(TextbookLoop):
    """The textbook loop with some rungs climbed, before the step is ours."""

    def __init__(self, variant: Variant, device: torch.device) -> None:
        data = TextbookImages(*random_images(), MEAN, STD)
        super().__init__(variant.model, data, variant.batch_size, device, workers=0, fused=variant.fused)
        self.bf16 = variant.bf16
        self.loss = partial(anchor_loss, anchor="none") if variant.own_loss else textbook_loss
        self._data = training_images(device)
        self._layout = torch.channels_last if variant.channels_last else torch.contiguous_format
        self.network.to(memory_format=self._layout)  # type: ignore[call-overload]
        self._batches = self._made_in_memory(variant.batch_size)

    def _made_in_memory(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        data = self._data
        dtype = torch.bfloat16 if self.bf16 else torch.float32
        for epoch in itertools.count():
            plan = augmentation.plan_epoch(0, epoch, len(data.labels)).to(self.device)
            for first in range(0, len(data.labels) - size + 1, size):
                place = slice(first, first + size)
                index = plan.order[place]
                pixels = augmentation.augment(
                    data.padded, index, plan.rows[place], plan.columns[place], plan.flip[place]
                )
                yield augmentation.normalize(pixels, MEAN, STD, dtype, self._layout), data.labels[index]


class OurLoop:
    """The runs of `variant`, by the engine that trains every run of this project."""

    prefetched = 0

    def __init__(self, variant: Variant, device: torch.device) -> None:
        threads = variant.threads or torch.get_num_threads()
        torch.set_num_threads(threads)
        self._trainers = build_trainers(variant, device)
        self._side_by_side = SideBySide(device, threads)

    def steps(self, count: int) -> None:
        """Carry out `count` steps of every run."""
        for _ in range(count):
            self._side_by_side.each(_step, self._trainers)
        for trainer in self._trainers:
            trainer.wait()


def build_trainers(variant: Variant, device: torch.device) -> list[Trainer]:
    """The variant's runs, as a sweep would train them, each before its first step."""
    torch.use_deterministic_algorithms(device.type == "cpu")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    data = training_images(device)
    settings = (run_settings(variant, seed) for seed in range(variant.runs))
    trainers = [Trainer(run, data, device, compile=variant.compile) for run in settings]
    for trainer in trainers:
        trainer.start_epoch(0)
    return trainers


def build_loop(variant: Variant) -> TextbookLoop | OurLoop:
    """The loop of a variant, ready for its first step."""
    device = torch.device(variant.device)
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
    choose_convolutions()
    torch.manual_seed(0)
    if variant.trainer:
        return OurLoop(variant, device)
    if variant.in_memory:
        return PartialLoop(variant, device)
    data = TextbookImages(*random_images(), MEAN, STD)
    return TextbookLoop(variant.model, data, variant.batch_size, device)


def run_settings(variant: Variant, seed: int) -> RunSettings:
    """Binary cross entropy at the paper's protocol."""
    return RunSettings(
        experiment="bench",
        loss=LossSettings("bce", "anchorloss.loss.anchor_loss", {"anchor": "none"}),
        model=ModelSettings(variant.model, "A", prior_bias=True),
        data=DataSettings("synthetic"),
        optim=OptimSettings(batch_size=variant.batch_size),
        precision=variant.precision,
        seed=seed,
    )


def random_images() -> tuple[Tensor, Tensor]:
    """uint8 (IMAGES, 3, 32, 32) of noise and labels int64 (IMAGES,) below 100."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 100, (IMAGES,), generator=generator)


def training_images(device: torch.device) -> TrainingImages:
    """The same images and labels on `device`, as the trainer takes them."""
    images, labels = random_images()
    return TrainingImages(augmentation.pad_images(images).to(device), labels.to(device), MEAN, STD, 100)


def _step(trainer: Trainer) -> None:
    if trainer.step_in_epoch == trainer.steps - 1:
        # The last batch of an epoch is not full; the others are what is measured.
        trainer.start_epoch(trainer.epoch + 1)
    trainer.train_step()
