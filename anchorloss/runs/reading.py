"""How a run's files are read: regular files of a sane size alone, so that no pipe or device blocks; JSON strictly."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from anchorloss.errors import UserError

# Larger than any file of a run: a checkpoint of ResNet-50 has 190 MB.
LARGEST = 1 << 30
# Far above what a run writes, and far below what would exhaust memory.
LIMITS = {
    "record.json": 1 << 20,
    "config.yaml": 1 << 20,
    "progress.json": 1 << 16,
    "claim.lock": 1 << 16,
    "history.csv": 64 << 20,
    "predictions.npz": 256 << 20,
}
# Objects inside objects; a record needs three.
_MAX_DEPTH = 12
# No loss in float32 comes near it; larger numbers overflow in what is computed from them, as sums and plots.
LARGEST_MEASURED = 1e60


def read_file(path: Path, largest: int | None = None) -> bytes | None:
    """The content of a regular file; links are followed.

    Args:
        path: the file.
        largest: how many bytes it may have; by default what `LIMITS` says for its name, else `LARGEST`.

    Returns:
        The bytes, or None if nothing is there. A link to a missing file is not nothing.

    Raises:
        UserError: the path is something else, too large, or cannot be read.
    """
    largest = LIMITS.get(path.name, LARGEST) if largest is None else largest
    try:
        with open(path, "rb", opener=_open) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"{path}: not a regular file; move it away")
            if status.st_size > largest:
                raise _too_large(path, largest)
            content = file.read(largest + 1)
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise UserError(
                f"{path}: a link to {path.readlink()}, which is missing; fetch that file, or remove the link"
            ) from None
        return None
    except (OSError, ValueError) as error:  # a ValueError for a path with a NUL
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read: {reason}; make it readable, or move it away") from error
    if len(content) > largest:  # files of /proc say that they are empty
        raise _too_large(path, largest)
    return content


def _too_large(path: Path, largest: int) -> UserError:
    return UserError(f"{path}: larger than {largest:,} bytes, which no run writes; move it away")


def _open(path: str, flags: int) -> int:
    """Without O_NONBLOCK, opening a pipe would wait for its writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def parse_json(text: bytes | str) -> Any:
    """The JSON value of `text`.

    Raises:
        ValueError: if it is not JSON, has NaN, an infinity or a key twice, or is nested deeply.
    """
    try:
        text = text if isinstance(text, str) else text.decode()
        value = json.loads(text, object_pairs_hook=_without_doubles, parse_constant=_refuse_constant)
        check_plain(value)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def check_plain(value: Any, depth: int = 0) -> None:
    """Check nested data that came from JSON.

    Raises:
        ValueError: it is nested deeply, or has a text of several lines or a number beyond `LARGEST_MEASURED`.
    """
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    if isinstance(value, dict):
        for key, item in value.items():
            check_plain(key, depth)
            check_plain(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            check_plain(item, depth + 1)
    elif isinstance(value, str):
        require(value.isprintable(), "a text", value, "must be printable characters in one line")
    elif isinstance(value, int | float):
        require(abs(value) <= LARGEST_MEASURED, "a number", value, "too large")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a key is there twice")
    return result


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def require(ok: bool, key: str, value: Any, problem: str) -> None:
    """Raise ValueError with the key, its value and the problem unless `ok`."""
    if not ok:
        raise ValueError(f"{key} is {value!a:.80}: {problem}")


def damaged(path: Path | str, problem: object) -> UserError:
    """The one line for a file whose content cannot be trusted."""
    reason = " ".join(ascii(str(problem))[1:-1].split())[:200]
    return UserError(f"{path}: {reason}; damaged or foreign: restore it from a copy, or move its folder away")
