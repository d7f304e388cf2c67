"""How a file of a run is opened: only a regular file of a sane size, so that no link, pipe or device is read for ever."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from anchorloss.errors import UserError

# Larger than any file of a run: a checkpoint of ResNet-50 has 190 MB.
LARGEST = 1 << 30


def read_file(path: Path, largest: int = LARGEST) -> bytes | None:
    """The content of a regular file of at most `largest` bytes; links are followed.

    Returns:
        The bytes, or None if nothing is there. A link to a missing file is not nothing.

    Raises:
        UserError: the path is something else, too large, or cannot be read.
    """
    try:
        with open(path, "rb", opener=_open) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"{path}: not a regular file; move it away")
            if status.st_size > largest:
                raise UserError(
                    f"{path}: {status.st_size:,} bytes, and at most {largest:,} are read; move it away"
                )
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise UserError(
                f"{path}: a link to {path.readlink()}, which is missing; fetch that file, or remove the link"
            ) from None
        return None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read: {error.strerror}; make it readable, or move it away"
        ) from error


def _open(path: str, flags: int) -> int:
    """Without O_NONBLOCK, opening a pipe would wait for its writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
