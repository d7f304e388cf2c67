"""Whether a record says what the files beside it say: history.csv and predictions.npz."""

from __future__ import annotations

import io
import math
import re
import zipfile
from array import array
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from anchorloss.config.settings import DATA_SETS
from anchorloss.errors import UserError
from anchorloss.runs.files import sha256
from anchorloss.runs.reading import LARGEST_MEASURED, damaged, read_file
from anchorloss.runs.record import HISTORY, PREDICTIONS, RECORD, Record

if TYPE_CHECKING:
    import numpy as np

HISTORY_COLUMNS = ("epoch", "learning_rate", "train_loss", "train_top1", "test_loss", "top1", "top5")
_KINDS = {"target": "uint8", "predicted": "uint8", "target_rank": "uint8", "confidence": "float16"}
# Bytes of one array; the test set of CIFAR needs 20,000.
_LARGEST_ARRAY = 64 << 20
_MOST_COLUMNS = 100


def read_record(folder: Path) -> Record | None:
    """The record of a run folder, None while it has none.

    It is held against the files beside it: their checksums, the last row and the length of the history, and Top-1 and
    Top-5 of the predictions. Files that have not changed since are not read again.

    Raises:
        UserError: names a file that is damaged or missing, or in what the record contradicts it.
    """
    text = read_file(folder / RECORD)
    if text is None:
        return None
    return _checked_record(folder, text, _signature(folder / HISTORY), _signature(folder / PREDICTIONS))


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


def parse_history(path: Path, content: bytes) -> tuple[list[str], np.ndarray]:
    """The columns of history.csv, and its numbers, float64 (epochs, columns); NaN where a cell is empty.

    Raises:
        UserError: if it is not a table of numbers with `HISTORY_COLUMNS` whose epochs count 1, 2, 3, …
    """
    import numpy as np

    names, numbers = [], array("d")
    try:
        lines = content.decode("ascii").splitlines()
        names = lines[0].split(",")
        if len(names) > _MOST_COLUMNS or len(set(names)) < len(names) or not "".join(names).isprintable():
            raise ValueError(f"{len(names):,} columns, or one of them twice or not printable")
        for line in lines[1:]:
            numbers.extend(float(cell or "nan") for cell in line.split(","))
        table = np.frombuffer(numbers).reshape(len(lines) - 1, len(names))
    except (ValueError, IndexError) as error:
        raise damaged(path, f"is not a history: {error}") from None
    for column in HISTORY_COLUMNS:
        if column not in names:
            raise damaged(path, f"is not a history: the column {column} is missing")
    if not (table[:, names.index("epoch")] == np.arange(1, len(table) + 1)).all():
        raise damaged(path, "its epochs do not count 1, 2, 3, …")
    for column, largest in zip(names, np.nanmax(abs(table), axis=0, initial=0.0), strict=True):
        if largest > LARGEST_MEASURED:
            raise damaged(path, f"the column {column!a:.40} has a number that no training gives")
    return names, table


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
def _checked_record(folder: Path, text: bytes, *_signatures: tuple[int, ...]) -> Record:
    record = Record.from_json(text, folder / RECORD)
    if record.run != folder.name:
        raise damaged(folder / RECORD, f"is the record of {record.run}")
    if HISTORY in record.files:
        _check_history(folder, record, read_verified(folder, record, HISTORY))
    if record.status == "finished":
        _check_predictions(folder, record, read_verified(folder, record, PREDICTIONS))
    return record


def _check_history(folder: Path, record: Record, content: bytes) -> None:
    import numpy as np

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
    names, table = parse_history(path, content)
    rows_of = {key: table[:, names.index(key)] for key in ("test_loss", "top1", "top5")}
    if re.search(rb"nan|inf", content, re.IGNORECASE):
        raise damaged(path, "has a number that is not finite")
    for key in ("top1", "top5"):
        if (rows_of[key] < 0).any() or (rows_of[key] > 100).any():
            raise damaged(path, f"{key} is not a percentage in every row")
    if math.isnan(rows_of["top1"][-1]):
        raise damaged(path, "its last epoch was not evaluated")
    for key, column in rows_of.items():
        if column[-1] != getattr(record, key):
            raise damaged(path, f"{key} is {column[-1]} in the last row, {getattr(record, key)} in {RECORD}")
    assert record.best is not None
    best = float(np.nanmax(rows_of["top1"]))
    told = tuple(rows_of[key][record.best.epoch - 1] for key in ("top1", "top5"))
    if told != (record.best.top1, record.best.top5) or record.best.top1 != best:
        raise damaged(
            path, f"its best Top-1 is {best}, {RECORD} names {record.best.top1} in epoch {record.best.epoch}"
        )


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
    return int(DATA_SETS.get(record.data.name, {}).get("classes", 256))
