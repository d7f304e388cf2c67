"""Run folders as training leaves them, with invented numbers, for tests of everything that reads them."""

from __future__ import annotations

import dataclasses
import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from anchorloss.config.settings import DataSettings, LossSettings, ModelSettings, OptimSettings, RunSettings
from anchorloss.runs.atomic import sha256, write_atomically
from anchorloss.runs.paths import run_folder
from anchorloss.runs.store import (
    HISTORY_COLUMNS,
    Best,
    Data,
    Failure,
    Progress,
    Provenance,
    Record,
    write_progress,
    write_record,
)

CLASSES = 100
LABELS = {"cifar100": "CIFAR-100", "cifar10": "CIFAR-10", "synthetic": "SYNTHETIC"}
ANCHORS = {"bce": "none", "anchor_target": "target", "anchor_bg": "background", "anchor_both": "both"}


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
        loss=LossSettings(loss, "anchorloss.loss.anchor_loss", anchor),
        model=ModelSettings(name=model, prior_bias=True),
        data=DataSettings(name=data, **sizes),
        optim=OptimSettings(epochs=epochs, **optim),
        precision="fp32",
        seed=seed,
    )


def history_text(epochs: int, modulated: bool, draw: random.Random) -> str:
    """A history.csv whose accuracies rise."""
    columns = list(HISTORY_COLUMNS)
    if modulated:
        columns += [f"target_factor_q{q}" for q in (50, 90)] + [
            f"background_factor_q{q}" for q in (50, 90, 99)
        ]
    lines = [",".join(columns)]
    for epoch in range(1, epochs + 1):
        share = epoch / epochs
        row = [epoch, 0.1, 5 - 4 * share, 70 * share, 5 - 3 * share, 60 * share + draw.random(), 90 * share]
        if modulated:
            row += [1 + draw.random() for _ in range(5)]
        lines.append(",".join(str(value) for value in row))
    return "\n".join(lines) + "\n"


def predictions_bytes(images: int, top1: float, draw: np.random.Generator) -> bytes:
    """A predictions.npz in which `top1` percent of the images are predicted right."""
    target = np.arange(images, dtype=np.uint8) % CLASSES
    right = np.arange(images) < round(images * top1 / 100)
    predicted = np.where(right, target, (target + 1) % CLASSES).astype(np.uint8)
    rank = np.where(right, 0, draw.integers(1, 10, images)).astype(np.uint8)
    confidence = draw.uniform(0.1, 1, images).astype(np.float16)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, target=target, predicted=predicted, target_rank=rank, confidence=confidence)
    return buffer.getvalue()


def make_record(
    settings: RunSettings,
    *,
    top1: float = 74.0,
    top5: float = 92.0,
    files: dict[str, str] | None = None,
    failed: bool = False,
    host: str = "workstation",
    images: int = 1000,
) -> Record:
    """The record of a run that ended."""
    data = settings.data
    checksum = "SYNTHETIC:1" if data.name == "synthetic" else "md5:eb9058c3a382ffc7106e4002c42a8d85"
    epochs = settings.optim.epochs
    return Record(
        format=1,
        status="failed" if failed else "finished",
        experiment=settings.experiment,
        run=settings.run,
        loss=settings.loss.name,
        model=settings.model.name,
        seed=settings.seed,
        epochs=epochs,
        evaluated_on=data.evaluate_on,
        top1=None if failed else top1,
        top5=None if failed else top5,
        test_loss=None if failed else 1.93,
        best=None if failed else Best(epochs, top1 + 0.1, top5),
        failure=Failure(3, 17, "non-finite loss", 12.5) if failed else None,
        data=Data(data.name, LABELS[data.name], checksum, data.training_images or 50000, images),
        identity=settings.identity(),
        hash=settings.hash,
        files=files if files is not None else {"history.csv": sha256(b"h"), "predictions.npz": sha256(b"p")},
        provenance=Provenance(
            commit="0123456789abcdef0123456789abcdef01234567",
            dirty=False,
            versions={"python": "3.11.2", "torch": "2.13.0"},
            device="CPU (2 threads)",
            host=host,
            precision=settings.precision,
            started="2026-11-23T05:28:00+00:00",
            finished="2026-11-23T06:28:00+00:00",
            duration_seconds=3600.0,
            resumed=0,
        ),
    )


def plan_run(results_dir: Path, settings: RunSettings) -> Path:
    """A run folder that waits: nothing but config.yaml in it."""
    folder = run_folder(results_dir, settings.experiment, settings.run)
    folder.mkdir(parents=True)
    config = settings.identity()
    config = {"experiment": {"name": settings.experiment}, "seeds": [config.pop("seed")], **config}
    write_atomically(folder / "config.yaml", yaml.safe_dump(config).encode())
    return folder


def interrupt_run(results_dir: Path, settings: RunSettings, *, epoch: int = 7) -> Path:
    """A run folder with a checkpoint and no owner."""
    folder = plan_run(results_dir, settings)
    (folder / "checkpoint.pt").write_bytes(b"weights")
    write_progress(
        folder, Progress(epoch, settings.optim.epochs, 2.5, 31.25, 480.0, "2026-11-23T05:30:00+00:00")
    )
    return folder


def finish_run(
    results_dir: Path,
    settings: RunSettings,
    *,
    top1: float = 74.0,
    top5: float = 92.0,
    failed: bool = False,
    host: str = "workstation",
    images: int = 1000,
) -> Path:
    """A run folder with its record; the same arguments give the same files, `host` aside."""
    folder = plan_run(results_dir, settings)
    history = history_text(
        settings.optim.epochs, settings.loss.name.startswith("anchor"), random.Random(settings.run)
    )
    contents = {"history.csv": history.encode()}
    if not failed:
        contents["predictions.npz"] = predictions_bytes(images, top1, np.random.default_rng(settings.seed))
    for name, content in contents.items():
        write_atomically(folder / name, content)
    files = {name: sha256(content) for name, content in contents.items()}
    record = make_record(settings, top1=top1, top5=top5, files=files, failed=failed, host=host, images=images)
    write_record(folder, record)
    return folder


def edit_record(folder: Path, **changes: Any) -> None:
    """Overwrite fields of a run's record.json as no program of ours would."""
    path = folder / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def with_provenance(record: Record, **changes: Any) -> Record:
    """The same result from elsewhere."""
    return dataclasses.replace(record, provenance=dataclasses.replace(record.provenance, **changes))
