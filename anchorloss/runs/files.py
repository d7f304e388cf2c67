"""How files are written, whole or not at all, and read: regular files of a sane size alone."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from anchorloss.errors import REMEDIES, RunError, UserError

# In bytes: more than any file of a run (a checkpoint of ResNet-50 has 190 MB), and than a text that people read.
LARGEST = 1 << 30
LARGEST_TEXT = 1 << 20
_SPACE = {
    errno.ENOSPC: "free some space and start again",
    errno.EDQUOT: "free some of the quota and start again",
}
# Without it, opening a pipe would wait for its writer.
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES}


def read_file(path: Path, largest: int = LARGEST) -> bytes | None:
    """The content of a regular file of at most `largest` bytes; links are followed.

    Returns:
        The bytes, or None if nothing is there. A link to a missing file is not nothing.

    Raises:
        UserError: the path is something else, too large, or cannot be read.
    """
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | _NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"{path}: not a regular file; move it away")
            content = file.read(largest + 1) if status.st_size <= largest else b""
            if max(status.st_size, len(content)) > largest:  # files of /proc say that they are empty
                raise UserError(f"{path}: larger than {largest:,} bytes, which no such file is; move it away")
            return content
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise UserError(
                f"{path}: a link to {path.readlink()}, which is missing; fetch that file, or remove the link"
            ) from None
        return None
    except (OSError, ValueError) as error:  # a ValueError for a path with a NUL
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read: {reason}; make it readable, or move it away") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: a reader, or a crash, sees the old content or the new one, never a part.

    Raises: RunError or, if the path is the mistake, UserError; the old content is then still there.
    """
    with written_beside(path, data) as temporary:
        temporary.replace(path)


def write_once(path: Path, data: bytes) -> None:
    """Create `path` with `data`, whole or not at all, and never over a file that is there.

    Raises: FileExistsError if `path` exists (it is left as it was); else as `write_atomically`.
    """
    with written_beside(path, data) as temporary:
        try:
            os.link(temporary, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # A file system without hard links (FAT, some network shares). Between the question and the rename another
            # process could slip in; the claim on a run's folder is what keeps it out there.
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
            temporary.rename(path)


def write_results(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Make `folder` if need be and write each file of it, by name, as `write_atomically` does.

    Raises: UserError if the folder cannot be made; else as `write_atomically`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made: {error.strerror}; name another --results-dir") from error
    for name, content in contents.items():
        write_atomically(folder / name, content)


@contextlib.contextmanager
def written_beside(path: Path, data: bytes) -> Iterator[Path]:
    """A new file with `data`, safely on the disk, which is to be renamed to `path`; gone at the end otherwise.

    Raises: as `write_once`.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.writing")
    try:
        # Not `tempfile`: its files can be read by their owner alone, which a shared folder does not want.
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
        with contextlib.suppress(OSError):  # not on Windows and some shares
            descriptor = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except FileExistsError:
        raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
        remedy = (_SPACE | REMEDIES).get(error.errno or 0, "see to the disk and start again")
        kind = UserError if error.errno in REMEDIES else RunError
        raise kind(f"{path}: cannot write {len(data):,} bytes: {reason}; {remedy}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def sha256(content: bytes) -> str:
    """The SHA-256 of bytes, as records have it: `sha256:` and 64 hex digits."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def damaged(path: Path | str, problem: object) -> UserError:
    """The one line for a file whose content cannot be trusted."""
    reason = " ".join(ascii(str(problem))[1:-1].split())[:200]
    return UserError(f"{path}: {reason}; damaged or foreign: restore it from a copy, or move its folder away")
