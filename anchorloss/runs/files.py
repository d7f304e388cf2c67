"""How a file is written so that it is whole or absent, whatever happens in between."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from anchorloss.errors import RunError, UserError

_REMEDIES = {
    errno.ENOSPC: "free some space and start again",
    errno.EDQUOT: "free some of the quota and start again",
    errno.EROFS: "choose a folder that can be written to",
    errno.EACCES: "choose a folder that can be written to",
    errno.EPERM: "choose a folder that can be written to",
    errno.ENOENT: "create the folder first",
    errno.EISDIR: "move away what is there",
    errno.ENOTDIR: "move away the file that is in the way",
    errno.ELOOP: "remove the circular link",
    errno.ENAMETOOLONG: "choose a shorter name",
}
# The request names a place where nothing can be written, whatever is done about the disk.
_MISTAKES = {errno.EISDIR, errno.EEXIST, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES}
# How long after its last change a half-written file is surely nobody's any more.
_STALE_SECONDS = 3600.0


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: a reader, or a crash, sees the old content or the new one, never a part.

    Raises: RunError if it cannot be written (the disk is full); the old content is then still there.
    """
    with _written_beside(path, data) as temporary:
        temporary.replace(path)


def write_results(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Make `folder` if need be and write each file of it, by name, as `write_atomically` does.

    Raises:
        RunError: the folder cannot be made or a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _error(error)(
            f"{folder}: cannot be made: {error.strerror}; name another --results-dir"
        ) from error
    for name, content in contents.items():
        write_atomically(folder / name, content)


def write_once(path: Path, data: bytes) -> None:
    """Create `path` with `data`, whole or not at all, and never over a file that is there.

    Raises: FileExistsError if `path` exists (it is left as it was); RunError if it cannot be written.
    """
    with _written_beside(path, data) as temporary:
        _link_or_rename(temporary, path)


def sha256(content: Path | bytes) -> str:
    """The SHA-256 of a file or of bytes, as records have it: `sha256:` and 64 hex digits. Raises: OSError."""
    if isinstance(content, bytes):
        return f"sha256:{hashlib.sha256(content).hexdigest()}"
    with content.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def remove_temporary_files(folder: Path, shared: str) -> None:
    """Remove what a process killed while writing left in `folder`. Only for the folder's one owner.

    `shared` is the one file that others may be writing at this moment; what they left of it goes once it is old.
    """
    for leftover in folder.glob(".*.writing"):
        with contextlib.suppress(OSError):
            is_shared = leftover.name.startswith(f".{shared}.")
            if not is_shared or time.time() - leftover.stat().st_mtime > _STALE_SECONDS:
                leftover.unlink()


@contextlib.contextmanager
def _written_beside(path: Path, data: bytes) -> Iterator[Path]:
    """A new file with `data`, safely on the disk, which is to be renamed to `path`; gone at the end otherwise."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.writing")
    try:
        # Not `tempfile`: its files can be read by their owner alone, which a shared folder does not want.
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
        # Not on Windows and some shares.
        with contextlib.suppress(OSError):
            descriptor = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except FileExistsError:
        raise
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "see to the disk and start again")
        reason = error.strerror or type(error).__name__
        raise _error(error)(f"{path}: cannot write {len(data):,} bytes: {reason}; {remedy}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _link_or_rename(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
        return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    # A file system without hard links (FAT, some network shares). Between the question and the rename another
    # process could slip in; the claim on a run's folder is what keeps it out there.
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    temporary.rename(path)


def _error(error: OSError) -> type[UserError] | type[RunError]:
    return UserError if error.errno in _MISTAKES else RunError
