"""Where a number comes from: commit, versions, machine."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path

from anchorloss.terminal import printable

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "numpy", "hydra-core", "omegaconf")
# Code, untracked too: a run may have used it; and what else decides what is trained.
_CODE = ("anchorloss", "models", "hydra_plugins", ":(glob)*.py")
_CONFIGS = ("configs",)
# What decides the numbers of a run whose settings are given.
_TRAINING = ("anchorloss/loss.py", "anchorloss/training", "anchorloss/data", "models")


@cache
def commit(*files: Path) -> tuple[str, bool]:
    """Name the commit of this checkout, and say whether its code or configs differ from it.

    Args:
        files: code of a run that is not part of this package.

    Returns:
        The commit, and whether a tracked file of code or configs is changed, code is untracked, or one of `files` is not
        in a commit as it is now; ("unknown", True) outside of git, and in another repository that this tree lies in.
    """
    head = _head()
    if head is None:
        return "unknown", True
    changed = _git(ROOT, "status", "--porcelain", "--untracked-files=no", "--", *_CODE, *_CONFIGS)
    untracked = _git(ROOT, "ls-files", "--others", "--exclude-standard", "--", *_CODE)
    return head, changed != "" or untracked != "" or not all(_is_committed(path) for path in files)


def made_with_other_code(commits: Iterable[str]) -> list[str]:
    """Those of the commits since which the code of training has changed; one that is not in the clone counts as none."""
    if _head() is None:
        return []
    known = [name for name in commits if _git(ROOT, "cat-file", "-t", name) == "commit"]
    return [name for name in known if _git(ROOT, "diff", "--name-only", name, "--", *_TRAINING) != ""]


def is_tracked(path: Path) -> bool:
    """Whether git has the file in this checkout, as it is now or as it was."""
    inside = path.resolve().is_relative_to(ROOT) and _head() is not None
    return inside and bool(_git(ROOT, "ls-files", "--", f":(literal){path.resolve().relative_to(ROOT)}"))


@cache
def _head() -> str | None:
    """The commit of this checkout; None where this tree is none of its own, or git does not read it."""
    top = _git(ROOT, "rev-parse", "--show-toplevel", is_told=True)
    if top is None or Path(top).resolve() != ROOT or not _git(ROOT, "ls-files", "--", "train.py"):
        return None
    return _git(ROOT, "rev-parse", "HEAD")


def _is_committed(path: Path) -> bool:
    """Whether a file is in the newest commit of its repository as it is now."""
    tracked = _git(path.parent, "ls-files", "--", path.name)
    return bool(tracked) and _git(path.parent, "status", "--porcelain", "--", path.name) == ""


def _git(folder: Path, *arguments: str, is_told: bool = False) -> str | None:
    """What git answers about the repository of a folder, None if it fails; `is_told` says why if it distrusts it."""
    # GIT_DIR and its like would point it to another repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment)
    except (OSError, subprocess.SubprocessError):
        return None
    if is_told and "safe.directory" in done.stderr:
        print(
            f"{folder}: git does not trust this checkout, which another user owns, so records name no commit; "
            f"git config --global --add safe.directory {folder} makes it",
            file=sys.stderr,
        )
    return done.stdout.strip() if done.returncode == 0 else None


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
