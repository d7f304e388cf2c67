"""Simulated runs with predictions and curves that look like training, for tests of the report.

The predictions come from a small model of a classifier: a random score for each class, a higher one for the target, and
a slightly higher one for the class that it is often confused with. Everything follows from the seeds, so two calls
write equal bytes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from anchorloss.runs.files import sha256
from anchorloss.runs.folder import write_record
from anchorloss.runs.record import Best
from tests.run_folders import TEST_LOSS, make_record, make_settings, plan_run, with_provenance

LOSSES = ("bce", "anchor_target", "anchor_bg", "anchor_both")
FACTORS = (
    "target_factor_q50",
    "target_factor_q90",
    "background_factor_q50",
    "background_factor_q90",
    "background_factor_q99",
)
STRENGTH = {"bce": 3.0, "anchor_target": 3.01, "anchor_bg": 3.03, "anchor_both": 3.0, "softmax": 3.0}
CONFUSION = {"bce": 2.2, "anchor_target": 2.18, "anchor_bg": 2.05, "anchor_both": 2.15, "softmax": 2.2}
MODULATED = {
    "anchor_target": ("target",),
    "anchor_bg": ("background",),
    "anchor_both": ("target", "background"),
}


def make_runs(
    results_dir: Path,
    experiment: str = "fake",
    *,
    losses: Iterable[str] = LOSSES,
    seeds: Iterable[int] = range(5),
    epochs: int = 40,
    classes: int = 100,
    images: int = 2000,
    data: str = "synthetic",
    model: str = "resnet20",
    failed: Collection[tuple[str, int]] = (),
    waiting: Collection[tuple[str, int]] = (),
    missing: Collection[tuple[str, int]] = (),
    **optim: Any,
) -> Path:
    """Write the runs of `losses` × `seeds` under `results_dir` and return the experiment's folder.

    failed: (loss, seed) with a failed record; waiting: with a config but no record; missing: no folder.
    """
    seeds = list(seeds)
    for loss in losses:
        for seed in seeds:
            if (loss, seed) in missing:
                continue
            settings = make_settings(
                loss, seed, experiment=experiment, model=model, data=data, epochs=epochs, **optim
            )
            folder = plan_run(results_dir, settings)
            if (loss, seed) in waiting:
                continue
            arrays = predictions(loss, seed, classes, images)
            top1, top5 = (100 * float((arrays["target_rank"] < k).mean()) for k in (1, 5))
            diverged = (loss, seed) in failed
            content = {"history.csv": _history(loss, seed, 2 if diverged else epochs, top1, top5)}
            if not diverged:
                buffer = io.BytesIO()
                np.savez_compressed(buffer, **arrays)
                content["predictions.npz"] = buffer.getvalue()
            for name, text in content.items():
                (folder / name).write_bytes(text)
            files = {name: sha256(text) for name, text in content.items()}
            record = make_record(
                settings,
                top1=top1,
                top5=top5,
                files=files,
                failed=diverged,
                images=images,
                best=_best(content["history.csv"]),
            )
            write_record(folder, with_provenance(record, dirty=seed == 4))
    return results_dir / "runs" / experiment


def predictions(loss: str, seed: int, classes: int, images: int) -> dict[str, np.ndarray]:
    """The arrays of predictions.npz."""
    generator = np.random.default_rng([seed, sum(map(ord, loss))])
    target = np.arange(images) % classes
    likeness = np.random.default_rng(7).uniform(0, 1.6, classes)
    each = np.arange(images)
    scores = generator.normal(0, 1, (images, classes))
    scores[each, target] += STRENGTH[loss] + 0.02 * np.random.default_rng(seed).normal()
    scores[each, (target + 1) % classes] += CONFUSION[loss] * likeness[target]
    own = scores[each, target]
    return {
        "target": target.astype(np.uint8),
        "predicted": scores.argmax(axis=1).astype(np.uint8),
        "target_rank": (scores > own[:, None]).sum(axis=1).astype(np.uint8),
        "confidence": (1 / (1 + np.exp(3.0 - 1.4 * scores.max(axis=1)))).astype(np.float16),
    }


def _history(loss: str, seed: int, epochs: int, top1: float, top5: float) -> bytes:
    """Evaluated every second epoch, and after the last."""
    generator = np.random.default_rng([seed, 3, sum(map(ord, loss))])
    columns = [name for side in MODULATED.get(loss, ()) for name in FACTORS if name.startswith(side)]
    above = {"q50": 0.0, "q90": 0.12, "q99": 0.3}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["epoch", "learning_rate", "train_loss", "train_top1", "test_loss", "top1", "top5", *columns]
    )
    for epoch in range(1, epochs + 1):
        last = epoch == epochs
        done = 1.0 if last else 1 - np.exp(-5 * epoch / epochs)
        wobble = 0.0 if last else generator.normal(0, 0.4)
        evaluated = [TEST_LOSS + 3 * (1 - done), top1 * done + wobble, top5 * done]
        for name in columns:
            moved = 1 + 0.2 * done if name.startswith("target") else 1 - 0.35 * done
            evaluated.append(moved + above[name[-3:]])
        rate = 0.1 if epoch <= 0.8 * epochs else 0.01
        training = [epoch, rate, 6 * (1 - done) + 0.5, 95 * done + generator.normal(0, 0.3)]
        skipped = epoch % 2 and not last
        writer.writerow([*training, *([""] * len(evaluated) if skipped else evaluated)])
    return text.getvalue().encode()


def _best(history: bytes) -> Best:
    rows = [row for row in csv.DictReader(io.StringIO(history.decode())) if row["top1"]]
    row = max(rows, key=lambda row: float(row["top1"]))
    return Best(epoch=int(row["epoch"]), top1=float(row["top1"]), top5=float(row["top5"]))
