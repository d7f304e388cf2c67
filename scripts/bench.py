"""Measure how many images a second this project's training loop takes, beside a loop as a textbook writes it.

    textbook              PIL images transformed one by one in a DataLoader, fp32, NCHW, eager, SGD, `.item()` each step
    ours                  one run, as train.py trains it on this machine
    ours, N at once       N runs as a sweep trains them: on a CPU one thread each, on a GPU one stream each
    ours, compiled        one run with compile=true

Each loop is a process of its own, and they take turns, so that other load slows all alike; a ratio is that of two turns
of the same round. Writes results/bench/DEVICE.csv; a device that has one gets another with the date.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain, repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hydra import compose, initialize_config_dir
from PIL import Image, ImageOps
from torch.nn import functional as F
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _common import parser, run, unused

import models
from anchorloss.config.parsing import parse
from anchorloss.data.dataset import load_dataset
from anchorloss.device import describe, resolve_device, slug, wait_for
from anchorloss.errors import UserError
from anchorloss.runs import provenance
from anchorloss.runs.files import write_results
from anchorloss.sweep.executor import prepare_torch
from anchorloss.sweep.side_by_side import SideBySide, cores
from anchorloss.training.device_data import DeviceData
from anchorloss.training.trainer import Trainer

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
MODELS = sorted(path.stem for path in CONFIGS.glob("model/*.yaml"))
CLASSES, BATCH, GPU_STEPS = 100, 128, 20  # steps between two waits for a GPU
MEAN, STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
LEAST_ROUNDS = 3  # with fewer, one disturbed turn decides the ratio


@dataclass(frozen=True)
class Loop:
    """What one process trains, on noise. `workers` are those of the textbook's DataLoader; 0 in a loop of ours."""

    name: str
    model: str
    device: torch.device
    runs: int = 1
    compile: bool = False
    workers: int = 0
    images: int = 50_000


@cache
def textbook_transform() -> Callable[[Any], torch.Tensor]:
    """torchvision's transforms; where it does not import beside this torch, the same calls."""
    try:
        from torchvision import transforms as t
    except (ImportError, RuntimeError):
        return transform_by_hand
    crop, flip = t.RandomCrop(32, padding=4), t.RandomHorizontalFlip()
    return t.Compose([crop, flip, t.ToTensor(), t.Normalize(MEAN, STD)])


def augmented_batch(examples: Sequence[tuple[Any, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """PIL images and labels as float32 (N, 3, 32, 32) and int64 (N,)."""
    images, labels = zip(*examples, strict=True)
    return torch.stack([textbook_transform()(image) for image in images]), torch.tensor(labels)


def transform_by_hand(image: Any) -> torch.Tensor:
    """A crop of the PIL image padded by 4, flipped or not, as normalised float32 (3, 32, 32)."""
    left, top, flip = (int(torch.randint(0, most, ())) for most in (9, 9, 2))
    image = ImageOps.expand(image, border=4, fill=0).crop((left, top, left + 32, top + 32))
    image = ImageOps.mirror(image) if flip else image
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
    return pixels.sub_(torch.tensor(MEAN).view(3, 1, 1)).div_(torch.tensor(STD).view(3, 1, 1))


def textbook(loop: Loop) -> Callable[[], float]:
    """A tutorial's loop, with workers that stay and pinned memory, as PyTorch advises; takes a step, returns its loss."""
    torch.backends.cudnn.benchmark = True
    noise = torch.randint(0, 256, (loop.images, 32, 32, 3), dtype=torch.uint8).numpy()
    examples: Any = [(Image.fromarray(pixels), index % CLASSES) for index, pixels in enumerate(noise)]
    options: Any = {"shuffle": True, "drop_last": True, "pin_memory": loop.device.type == "cuda"}
    options |= {"num_workers": loop.workers, "persistent_workers": True, "collate_fn": augmented_batch}
    batches = chain.from_iterable(repeat(DataLoader(examples, BATCH, **options)))
    network = models.build(loop.model, CLASSES).to(loop.device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)

    def step() -> float:
        images, target = (part.to(loop.device, non_blocking=True) for part in next(batches))
        labels = F.one_hot(target, CLASSES).float()
        loss = F.binary_cross_entropy_with_logits(network(images), labels, reduction="sum") / len(target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def ours(loop: Loop) -> Callable[[], object]:
    """The runs by the project's engine, with the settings that train.py would give them; takes a step of each."""
    device, threads = loop.device, int(loop.runs > 1 and loop.device.type == "cpu")
    overrides = ["data=synthetic", "data.training_images=100", "data.test_images=100", f"model={loop.model}"]
    overrides += [f"seeds={list(range(loop.runs))}", f"device={device}", f"threads={threads}"]
    overrides += [f"optim.batch_size={BATCH}"]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        settings, execution = parse(compose("config", overrides))
    prepare_torch(execution, device)
    noise = torch.randint(0, 256, (loop.images, 3, 32, 32), dtype=torch.uint8)
    labels = torch.arange(loop.images) % CLASSES
    dataset = replace(load_dataset(settings[0].data), train_images=noise, train_labels=labels)
    data, side_by_side = DeviceData.of(dataset, device), SideBySide(device, torch.get_num_threads())
    trainers = [Trainer(each, data, compile=loop.compile) for each in settings]

    def step(trainer: Trainer) -> Trainer:
        if trainer.step_in_epoch in (0, trainer.steps - 1):  # an epoch's last batch is not full
            trainer.start_epoch(trainer.epoch + 1)
        trainer.train_step()
        return trainer

    return lambda: side_by_side.each(step, trainers)


@cache
def started(loop: Loop) -> Callable[[], object]:
    """The loop that this process trains, as its last step left it."""
    return textbook(loop) if loop.workers else ours(loop)


def images_per_second(loop: Loop, seconds: float) -> float:
    """Train for so many seconds, after some steps that do not count, and return the rate of all runs together."""
    step = started(loop)
    for _ in range(2 + 2 * loop.workers):  # a loader has batches ready when nobody has asked for a while
        step()
    wait_for(loop.device)
    begun, images, taken = time.perf_counter(), 0, 0.0
    while taken < seconds:
        for _ in range(1 if loop.device.type == "cpu" else GPU_STEPS):
            step()
            images += BATCH * loop.runs
        wait_for(loop.device)
        taken = time.perf_counter() - begun
    return images / taken


def measure(loops: Sequence[Loop], rounds: int, seconds: float = 1.0) -> pd.DataFrame:
    """Measure the loops in turns of about so many seconds; a row each, NaN for a compiled one that does not run here.

    Columns: median, lowest and highest of `images_per_second`, all runs together, and of `x_textbook`, the ratio.
    """
    rates: dict[str, list[float]] = {loop.name: [] for loop in loops}
    with ExitStack() as stack:
        # They leave Ctrl-C to the process that waits for them.
        new = partial(ProcessPoolExecutor, 1, get_context("spawn"), signal.signal, (2, signal.SIG_IGN))
        processes = {loop: stack.enter_context(new()) for loop in loops}
        for turn in range(rounds):
            for loop in loops[:: -1 if turn % 2 else 1]:
                name = f"{loop.model}, {loop.name}"
                print(f"round {turn + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
                turn_taken = processes[loop].submit(images_per_second, loop, seconds)
                error = turn_taken.exception() if loop.compile else None
                if error:
                    print(f"{name}: does not run here: {error}"[:300], file=sys.stderr)
                rates[loop.name].append(float("nan") if error else turn_taken.result())
    parts = {"images_per_second": pd.DataFrame(rates)}
    if rounds >= LEAST_ROUNDS:
        parts["x_textbook"] = parts["images_per_second"].div(rates["textbook"], axis=0)
    table = pd.concat({name: part.agg(["median", "min", "max"]).T for name, part in parts.items()}, axis=1)
    table.columns = table.columns.map("_".join)
    return table.rename_axis("loop").reset_index().assign(model=loops[0].model, rounds=rounds)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    options.add_argument("--models", nargs="+", default=["resnet20", "resnet110"], choices=MODELS)
    options.add_argument("--at-once", nargs="+", type=int, help="runs (default: one a core; 8 on a GPU)")
    options.add_argument("--rounds", type=int, default=5, help="turns of each loop (default: %(default)s)")
    arguments = options.parse_args()
    device = resolve_device(arguments.device)
    at_once = arguments.at_once or [8 if device.type == "cuda" else cores()]
    if not all(0 < number <= 1000 for number in (arguments.rounds, *at_once)):
        raise UserError("--rounds and --at-once: must be whole numbers from 1 to 1000")
    path = unused(arguments.results_dir / "bench" / f"{slug(describe(device))}.csv")
    write_results(path.parent, {})  # a folder that cannot be made is no surprise after measuring
    where = {"device": describe(device), "torch": provenance.versions()["torch"]}
    where["commit"] = provenance.short_commit(*provenance.commit())
    tables = []
    for model in arguments.models:
        ours = Loop("ours", model, device)
        loops = [replace(ours, name="textbook", workers=min(cores(), 8)), ours]
        loops += [replace(ours, name=f"ours, {number} at once", runs=number) for number in at_once]
        loops += [replace(ours, name="ours, compiled", compile=True)]
        tables += [measure(loops, arguments.rounds).assign(**where)]
        table = pd.concat(tables)
        write_results(path.parent, {path.name: table.to_csv(index=False, float_format="%.5g").encode()})
    print(table.drop(columns=list(where)).to_string(index=False, float_format="{:.4g}".format))
    print(f"written: {path}")


if __name__ == "__main__":
    run(main)
