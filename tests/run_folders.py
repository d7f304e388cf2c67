"""Run folders as training leaves them, with invented numbers, for tests of everything that reads them."""

from __future__ import annotations

import io
import json
import random
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


TEST_LOSS = 1.93


def history_text(epochs: int, modulated: bool, top1: float, top5: float, draw: random.Random) -> str:
    """A history.csv whose accuracies rise to `top1` and `top5`."""
    columns = list(HISTORY_COLUMNS)
    if modulated:
        columns += [f"target_factor_q{q}" for q in (50, 90)] + [
            f"background_factor_q{q}" for q in (50, 90, 99)
        ]
    lines = [",".join(columns)]
    for epoch in range(1, epochs + 1):
        share = epoch / epochs
        measured = [TEST_LOSS + 3 * (1 - share), top1 * share, top5 * share]
        row = [epoch, 0.1, 5 - 4 * share, 70 * share, *measured]
        if modulated:
            row += [1 + draw.random() for _ in range(5)]
        lines.append(",".join(str(value) for value in row))
    return "\n".join(lines) + "\n"


def predictions_bytes(
    classes: int, images: int, right: int, among_five: int, draw: np.random.Generator
) -> bytes:
    """A predictions.npz with `right` right answers, and `among_five` among the first five."""
    target = np.arange(images) % classes
    each = np.arange(images)
    predicted = np.where(each < right, target, (target + 1) % classes).astype(np.uint8)
    rank = np.where(each < among_five, draw.integers(1, 5, images), draw.integers(5, 10, images))
    rank = np.where(each < right, 0, rank).astype(np.uint8)
    confidence = draw.uniform(0.1, 1, images).astype(np.float16)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, target=target.astype(np.uint8), predicted=predicted, target_rank=rank, confidence=confidence
    )
    return buffer.getvalue()


def make_record(
    settings: RunSettings,
    *,
    top1: float = 74.0,
    top5: float = 92.0,
    files: dict[str, str] | None = None,
    failed: bool = False,
    host: str = "workstation",
    images: int = 10000,
    best: Best | None = None,
) -> Record:
    """The record of a run that ended."""
    data = settings.data
    checksum = "SYNTHETIC:1" if data.name == "synthetic" else "md5:eb9058c3a382ffc7106e4002c42a8d85"
    common: dict[str, Any] = {
        "data": Data(
            name=data.name,
            label=LABELS[data.name],
            checksum=checksum,
            training_images=data.training_images or 50000,
            evaluation_images=images,
        ),
        "files": files or {"history.csv": sha256(b"h"), "predictions.npz": sha256(b"p")},
        "provenance": Provenance(
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
    }
    if failed:
        failure = Failure(
            epoch=min(3, settings.optim.epochs), step=17, reason="non-finite loss", last_finite_loss=12.5
        )
        return Record.of(settings.experiment, settings.identity(), failure=failure, **common)
    best = best or Best(epoch=settings.optim.epochs, top1=top1 + 0.1, top5=top5 + 0.1)
    outcome = {"top1": top1, "top5": top5, "test_loss": TEST_LOSS, "best": best}
    return Record.of(settings.experiment, settings.identity(), **outcome, **common)


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
        Progress(
            epoch=epoch,
            epochs=settings.optim.epochs,
            top1=31.25,
            seconds_left=480.0,
        ),
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
    images: int = 10000,
) -> Path:
    """A run folder with its record; the same arguments give the same files, `host` aside.

    `top1` and `top5` are recorded as the nearest that a number of `images` answers gives.
    """
    folder = plan_run(results_dir, settings)
    right, among_five = (round(images * share / 100) for share in (top1, max(top1, top5)))
    top1, top5 = 100 * (right / images), 100 * (among_five / images)
    rows = min(3, settings.optim.epochs) - 1 if failed else settings.optim.epochs
    modulated = settings.loss.name.startswith("anchor")
    history = history_text(rows, modulated, top1, top5, random.Random(settings.run))
    contents = {"history.csv": history.encode()}
    if not failed:
        generator = np.random.default_rng(settings.seed)
        contents["predictions.npz"] = predictions_bytes(
            CLASSES[settings.data.name], images, right, among_five, generator
        )
    for name, content in contents.items():
        write_atomically(folder / name, content)
    files = {name: sha256(content) for name, content in contents.items()}
    record = make_record(
        settings,
        top1=top1,
        top5=top5,
        files=files,
        failed=failed,
        host=host,
        images=images,
        best=Best(epoch=settings.optim.epochs, top1=top1, top5=top5),
    )
    write_record(folder, record)
    return folder


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


def with_provenance(record: Record, **changes: Any) -> Record:
    """The same result from elsewhere."""
    outcome = {key: getattr(record, key) for key in ("top1", "top5", "test_loss", "best", "failure")}
    provenance = record.provenance.model_copy(update=changes)
    return Record.of(
        record.experiment,
        record.identity,
        data=record.data,
        files=record.files,
        provenance=provenance,
        **outcome,
    )
