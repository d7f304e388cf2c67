"""How a file of a run is opened: only a regular file of a sane size, so that no link, pipe or device is read for ever."""

from __future__ import annotations

import os
import stat
from pathlib import Path

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
