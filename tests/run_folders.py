"""Run folders as training leaves them, with invented numbers, for tests of everything that reads them."""

from __future__ import annotations

import io
import itertools
import json
import math
import random
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from anchorloss.config.settings import LossSettings, RunSettings
from anchorloss.runs.files import sha256, write_atomically
from anchorloss.runs.folder import (
    HISTORY_COLUMNS,
    Progress,
    run_config,
    run_folder,
    write_progress,
    write_record,
)
from anchorloss.runs.record import Best, Data, Failure, Provenance, Record
from tests.settings import data_settings, model_settings, optim_settings

CLASSES = {"cifar100": 100, "cifar10": 10, "synthetic": 100}
LABELS = {"cifar100": "CIFAR-100", "cifar10": "CIFAR-10", "synthetic": "SYNTHETIC"}
ANCHORS = {"bce": "none", "anchor_target": "target", "anchor_bg": "background", "anchor_both": "both"}
# For `classifier_answers`: what the target's score has more, and at most that of the class it is confused with.
STRENGTH_AND_CONFUSION = {
    "bce": (3.0, 2.2),
    "anchor_target": (3.01, 2.18),
    "anchor_bg": (3.03, 2.05),
    "anchor_both": (3.0, 2.15),
    "softmax": (3.0, 2.2),
}
TEST_LOSS = 1.93


def make_settings(
    loss: str = "bce",
    seed: int = 0,
    *,
    experiment: str = "table1",
    model: str = "resnet110",
    data: str = "cifar100",
    epochs: int = 200,
    gamma: float = 0.5,
    **optim: Any,
) -> RunSettings:
    """The settings of one run; further keywords go to `optim`."""
    sizes = {"training_images": 2000, "test_images": 1000} if data == "synthetic" else {}
    optim.setdefault("lr_warmup_epochs", 1.0)  # as experiment=table1 has it
    anchor = {"anchor": ANCHORS[loss], "gamma": gamma, "slack": 0.0} if loss in ANCHORS else {}
    return RunSettings(
        experiment=experiment,
        loss=LossSettings.model_validate({"name": loss, "function": "anchorloss.loss.anchor_loss", **anchor}),
        model=model_settings(model),
        data=data_settings(data, **sizes),
        optim=optim_settings(epochs=epochs, **optim),
        precision="fp32",
        seed=seed,
    )


def history_text(settings: RunSettings, rows: int, top1: float, top5: float) -> str:
    """The first rows of a history.csv whose accuracies rise to `top1` and `top5`, evaluated as the settings say."""
    anchor = getattr(settings.loss, "anchor", "none")
    factors = {"target": ("q50", "q90"), "background": ("q50", "q90", "q99")}
    columns = [(side, q) for side in factors if anchor in (side, "both") for q in factors[side]]
    draw = random.Random(settings.run)
    epochs, every = settings.optim.epochs, settings.optim.evaluate_every
    lines = [",".join([*HISTORY_COLUMNS, *(f"{side}_factor_{q}" for side, q in columns)])]
    for epoch in range(1, rows + 1):
        done = 1.0 if epoch == epochs else 1 - math.exp(-5 * epoch / epochs)
        measured = [TEST_LOSS + 3 * (1 - done), top1 * done, top5 * done]
        for side, q in columns:
            moved = 1 + 0.2 * done if side == "target" else 1 - 0.35 * done
            measured.append(moved + {"q50": 0.0, "q90": 0.12, "q99": 0.3}[q])
        if epoch % every and epoch < epochs:
            measured = [""] * len(measured)
        rate = 0.1 if epoch <= 0.8 * epochs else 0.01
        row = [epoch, rate, 6 * (1 - done) + 0.5, 94 * done + draw.random(), *measured]
        lines.append(",".join(str(value) for value in row))
    return "\n".join(lines) + "\n"


def answers_of(classes: int, images: int, right: int, among_five: int, seed: int) -> dict[str, np.ndarray]:
    """The arrays of a predictions.npz with `right` right answers, and `among_five` among the first five."""
    draw = np.random.default_rng(seed)
    each = np.arange(images)
    target = each % classes
    rank = np.where(each < among_five, draw.integers(1, 5, images), draw.integers(5, 10, images))
    return {
        "target": target.astype(np.uint8),
        "predicted": np.where(each < right, target, (target + 1) % classes).astype(np.uint8),
        "target_rank": np.where(each < right, 0, rank).astype(np.uint8),
        "confidence": draw.uniform(0.1, 1, images).astype(np.float16),
    }


def classifier_answers(loss: str, seed: int, images: int) -> dict[str, np.ndarray]:
    """The arrays of a predictions.npz as a classifier of 100 classes gives them, with its mistakes.

    Each class has a random score, the target a higher one, and the class that it is often confused with one between.
    """
    strength, confusion = STRENGTH_AND_CONFUSION[loss]
    generator = np.random.default_rng([seed, sum(map(ord, loss))])
    each = np.arange(images)
    target = each % 100
    likeness = np.random.default_rng(7).uniform(0, 1.6, 100)
    scores = generator.normal(0, 1, (images, 100))
    scores[each, target] += strength + 0.02 * np.random.default_rng(seed).normal()
    scores[each, (target + 1) % 100] += confusion * likeness[target]
    return {
        "target": target.astype(np.uint8),
        "predicted": scores.argmax(axis=1).astype(np.uint8),
        "target_rank": (scores > scores[each, target][:, None]).sum(axis=1).astype(np.uint8),
        "confidence": (1 / (1 + np.exp(3.0 - 1.4 * scores.max(axis=1)))).astype(np.float16),
    }


def make_record(
    settings: RunSettings,
    *,
    top1: float = 74.0,
    top5: float = 92.0,
    files: dict[str, str] | None = None,
    failed: bool = False,
    images: int = 10000,
    **provenance: Any,
) -> Record:
    """The record of a run that ended; further keywords are fields of its provenance."""
    data, epochs = settings.data, settings.optim.epochs
    checksum = "SYNTHETIC:1" if data.name == "synthetic" else "md5:eb9058c3a382ffc7106e4002c42a8d85"
    made = {
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "dirty": False,
        "versions": {"python": "3.11.2", "torch": "2.13.0"},
        "device": "CPU (2 threads)",
        "host": "workstation",
        "precision": settings.precision,
        "started": "2026-11-23T05:28:00+00:00",
        "finished": "2026-11-23T06:28:00+00:00",
        "duration_seconds": 3600.0,
        "resumed": 0,
    }
    if failed:
        failure = Failure(epoch=min(3, epochs), step=17, reason="non-finite loss", last_finite_loss=12.5)
        outcome: dict[str, Any] = {"failure": failure}
    else:
        best = Best(epoch=epochs, top1=top1, top5=top5)
        outcome = {"top1": top1, "top5": top5, "test_loss": TEST_LOSS, "best": best}
    return Record.of(
        settings.experiment,
        settings.identity(),
        data=Data(
            name=data.name,
            label=LABELS[data.name],
            checksum=checksum,
            training_images=data.training_images or 50000,
            evaluation_images=images,
        ),
        files=files or {"history.csv": sha256(b"h"), "predictions.npz": sha256(b"p")},
        provenance=Provenance.model_validate({**made, **provenance}),
        **outcome,
    )


def plan_run(results_dir: Path, settings: RunSettings) -> Path:
    """A run folder that waits: nothing but config.yaml in it."""
    folder = run_folder(results_dir, settings.experiment, settings.run)
    folder.mkdir(parents=True)
    config = run_config(settings.experiment, settings.identity())
    write_atomically(folder / "config.yaml", yaml.safe_dump(config).encode())
    return folder


def interrupt_run(results_dir: Path, settings: RunSettings, *, epoch: int = 7) -> Path:
    """A run folder with a checkpoint and no owner."""
    folder = plan_run(results_dir, settings)
    (folder / "checkpoint.pt").write_bytes(b"weights")
    write_progress(
        folder,
        Progress(epoch=epoch, epochs=settings.optim.epochs, top1=31.25, seconds_left=480.0),
    )
    return folder


def finish_run(
    results_dir: Path,
    settings: RunSettings,
    *,
    top1: float = 74.0,
    top5: float = 92.0,
    failed: bool = False,
    images: int = 10000,
    answers: dict[str, np.ndarray] | None = None,
    **provenance: Any,
) -> Path:
    """A run folder with its record; the same arguments give the same files, `provenance` aside.

    `top1` and `top5` are recorded as the nearest that a number of `images` answers gives, or those of `answers`.
    """
    folder = plan_run(results_dir, settings)
    if answers is None:
        right, among_five = (round(images * share / 100) for share in (top1, max(top1, top5)))
        answers = answers_of(CLASSES[settings.data.name], images, right, among_five, settings.seed)
    top1, top5 = (100 * float((answers["target_rank"] < k).mean()) for k in (1, 5))
    rows = min(3, settings.optim.epochs) - 1 if failed else settings.optim.epochs
    contents = {"history.csv": history_text(settings, rows, top1, top5).encode()}
    if not failed:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **answers)
        contents["predictions.npz"] = buffer.getvalue()
    for name, content in contents.items():
        write_atomically(folder / name, content)
    files = {name: sha256(content) for name, content in contents.items()}
    outcome: dict[str, Any] = {"top1": top1, "top5": top5, "failed": failed, "images": images}
    write_record(folder, make_record(settings, files=files, **outcome, **provenance))
    return folder


def make_runs(
    results_dir: Path,
    experiment: str,
    *,
    losses: Iterable[str] = tuple(ANCHORS),
    seeds: Iterable[int] = range(5),
    images: int = 2000,
    failed: Collection[tuple[str, int]] = (),
    missing: Collection[tuple[str, int]] = (),
    **settings: Any,
) -> None:
    """Runs of `losses` and `seeds` that look like training, for the report; (loss, seed) has failed or is missing."""
    common = {"model": "resnet20", "data": "synthetic", "epochs": 40, "evaluate_every": 2, **settings}
    for loss, seed in sorted({*itertools.product(losses, seeds)} - {*missing}):
        finish_run(
            results_dir,
            make_settings(loss, seed, experiment=experiment, **common),
            failed=(loss, seed) in failed,
            images=images,
            answers=classifier_answers(loss, seed, images),
            dirty=seed == 4,
        )


def edit_record(folder: Path, **changes: Any) -> None:
    """Overwrite fields of a run's record.json as no program of ours would, with the checksum of what is then there."""
    path = folder / "record.json"
    path.write_bytes(sealed({**json.loads(path.read_text()), **changes}))


def sealed(content: dict[str, Any]) -> bytes:
    """The text of a record.json with this content and its right checksum."""
    content = {key: value for key, value in content.items() if key != "checksum"}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    content["checksum"] = sha256(text.encode())
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
