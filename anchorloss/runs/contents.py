"""Whether a record says what the files beside it say: history.csv and predictions.npz."""

from __future__ import annotations

import csv
import io
import math
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from anchorloss.errors import UserError
from anchorloss.runs.atomic import sha256
from anchorloss.runs.reading import read_file
from anchorloss.runs.record import HISTORY, PREDICTIONS, RECORD, Record, damaged

if TYPE_CHECKING:
    import numpy as np

HISTORY_COLUMNS = ("epoch", "learning_rate", "train_loss", "train_top1", "test_loss", "top1", "top5")
# Far above the loss of any network in float32, far below where sums and plots of such numbers overflow.
LARGEST_MEASURED = 1e60
_CLASSES = {"CIFAR-100": 100, "CIFAR-10": 10, "SYNTHETIC": 100}
_KINDS = {"target": "uint8", "predicted": "uint8", "target_rank": "uint8", "confidence": "float16"}
# Bytes of one array; the test set of CIFAR needs 20,000.
_LARGEST_ARRAY = 64 << 20
_Row = dict[str, float | None]


def check(folder: Path, record: Record, text: bytes) -> None:
    """Hold `record`, read from `text`, against the files of its run; at once if none has changed since it was done.

    Raises:
        UserError: names the file that is damaged or missing, or in what the record contradicts it.
    """
    _check(folder, text, _signature(folder / HISTORY), _signature(folder / PREDICTIONS))


def read_verified(folder: Path, record: Record, name: str) -> bytes:
    """The content of one of the run's files, which has the checksum in the record.

    Raises:
        UserError: if it is missing or another.
    """
    content = read_file(folder / name)
    if content is None:
        raise UserError(
            f"{folder / name}: missing, though {RECORD} names it; copy the whole run folder again"
        )
    if sha256(content) != record.files[name]:
        raise damaged(folder / name, f"its SHA-256 is not the one in {RECORD}")
    return content


def unpack_predictions(path: Path, content: bytes) -> dict[str, np.ndarray]:
    """The arrays of predictions.npz: `target`, `predicted`, `target_rank` uint8 (N,), `confidence` float16 (N,).

    Raises:
        UserError: if they are not of these kinds, of one length, and confidences from 0 to 1.
    """
    import numpy as np

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as members:
            for member in members.infolist():
                if member.file_size > _LARGEST_ARRAY:
                    raise damaged(path, f"{member.filename!a:.40} has {member.file_size:,} bytes")
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in _KINDS}
    except UserError:
        raise
    except Exception as error:  # a damaged zip file or array header raises nearly any kind of error
        raise damaged(path, error) from error
    length = arrays["target"].shape[0] if arrays["target"].ndim else 0
    for name, kind in _KINDS.items():
        if arrays[name].dtype != kind or arrays[name].shape != (length,) or not length:
            raise damaged(
                path, f"{name} is {arrays[name].dtype} {arrays[name].shape}, not {kind} ({length},)"
            )
    confidence = arrays["confidence"]
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise damaged(path, "a confidence is not between 0 and 1")
    return arrays


def _signature(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@lru_cache(maxsize=4096)
def _check(folder: Path, text: bytes, *_signatures: tuple[int, ...]) -> None:
    record = Record.from_json(text)
    if HISTORY in record.files:
        _check_history(folder, record, read_verified(folder, record, HISTORY))
    if record.status == "finished":
        _check_predictions(folder, record, read_verified(folder, record, PREDICTIONS))


def _check_history(folder: Path, record: Record, content: bytes) -> None:
    path = folder / HISTORY
    rows = content.count(b"\n") - 1
    if record.failure is not None:
        # A loss that is not finite on the evaluation set has its row, one in training has none.
        expected = record.failure.epoch - (record.failure.step >= 0)
    else:
        expected = record.epochs
    if rows != expected:
        raise damaged(path, f"has {rows:,} rows, not {expected:,} as {RECORD} says")
    if record.status != "finished":
        return
    table = _rows(path, content)
    last, best = table[-1], max(row["top1"] for row in table if row["top1"] is not None)
    for key in ("test_loss", "top1", "top5"):
        if last[key] != getattr(record, key):
            raise damaged(path, f"{key} is {last[key]} in the last row, {getattr(record, key)} in {RECORD}")
    assert record.best is not None
    told = table[record.best.epoch - 1]
    if (told["top1"], told["top5"]) != (record.best.top1, record.best.top5) or record.best.top1 != best:
        raise damaged(
            path, f"its best Top-1 is {best}, {RECORD} names {record.best.top1} in epoch {record.best.epoch}"
        )


def _rows(path: Path, content: bytes) -> list[_Row]:
    """The columns that a record repeats; empty cells are None."""
    try:
        reader = csv.DictReader(io.StringIO(content.decode("ascii")), strict=True)
        table = [
            {key: float(row[key]) if row[key] else None for key in ("epoch", "test_loss", "top1", "top5")}
            for row in reader
        ]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise damaged(path, f"is not a history: {error}") from None
    for number, row in enumerate(table, 1):
        values = [value for value in row.values() if value is not None]
        accuracies = [value for key in ("top1", "top5") if (value := row[key]) is not None]
        if row["epoch"] != number or not all(map(math.isfinite, values)):
            raise damaged(path, f"its row {number} is not that of epoch {number}")
        if not all(0 <= value <= 100 for value in accuracies):
            raise damaged(path, f"an accuracy in row {number} is not a percentage")
    if not table or table[-1]["top1"] is None:
        raise damaged(path, "its last epoch was not evaluated")
    return table


def _check_predictions(folder: Path, record: Record, content: bytes) -> None:
    path = folder / PREDICTIONS
    arrays = unpack_predictions(path, content)
    target, predicted, rank = arrays["target"], arrays["predicted"], arrays["target_rank"]
    images, classes = record.data.evaluation_images, _number_of_classes(record)
    if len(target) != images:
        raise damaged(path, f"has {len(target):,} predictions, {RECORD} {images:,} evaluation images")
    for name in ("target", "predicted", "target_rank"):
        if (highest := int(arrays[name].max())) >= classes:
            raise damaged(path, f"{name} goes up to {highest}, in a set of {classes} classes")
    if ((rank == 0) != (predicted == target)).any():
        raise damaged(path, "target_rank is 0 where the prediction is wrong, or the reverse")
    for key, right in (("top1", rank == 0), ("top5", rank < 5)):
        counted = 100 * (int(right.sum()) / images)
        if counted != getattr(record, key):
            raise damaged(path, f"its {key} is {counted}, {getattr(record, key)} in {RECORD}")


def _number_of_classes(record: Record) -> int:
    if record.data.class_names is not None:
        return len(record.data.class_names)
    return _CLASSES.get(record.data.label, 256)
