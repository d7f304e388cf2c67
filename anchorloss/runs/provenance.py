"""Where a number comes from: commit, versions, machine."""

from __future__ import annotations

import platform
import socket
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path

from anchorloss.terminal import printable

PACKAGES = ("torch", "numpy", "hydra-core", "omegaconf")


# Where an untracked file is code that a run may have used.
CODE = ("anchorloss", "models", "hydra_plugins", ":(glob)*.py")


@cache
def commit(*files: Path) -> tuple[str, bool]:
    """Name the commit of this repository, and say whether the code differs from it.

    Args:
        files: code of a run that is not part of this package.

    Returns:
        The commit, and whether a tracked file is changed, code is untracked, or one of `files` is not in a commit as it
        is now; ("unknown", True) outside of git.
    """
    root = Path(__file__).resolve().parents[2]
    try:
        head = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
        untracked = _git(root, "ls-files", "--others", "--exclude-standard", "--", *CODE)
    except (OSError, subprocess.SubprocessError):
        return "unknown", True
    return head, bool(changed or untracked) or not all(_is_committed(path) for path in files)


def _is_committed(path: Path) -> bool:
    """Whether a file is in the newest commit of its repository as it is now."""
    try:
        tracked = _git(path.parent, "ls-files", "--", path.name)
        return bool(tracked) and not _git(path.parent, "status", "--porcelain", "--", path.name)
    except (OSError, subprocess.SubprocessError):
        return False


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()


@cache
def versions() -> dict[str, str]:
    """The versions of Python and of the packages that can change a result."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}


def segment(device: str, compile: bool) -> str:
    """What may change when a run is resumed elsewhere or later, in one line."""
    made_with = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"commit {short_commit(*commit())}, {device}{', compiled' * compile}, {made_with}"


def short_commit(commit: str, dirty: bool) -> str:
    """A commit as people read it."""
    return f"{commit[:10]}{' with local changes' * dirty}"


def now() -> str:
    """The time as records write it: ISO 8601, UTC, in whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def host() -> str:
    """The name of this machine, as a record can hold it."""
    return printable(socket.gethostname())
