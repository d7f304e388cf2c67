"""Where a number comes from: commit, versions, machine."""

from __future__ import annotations

import platform
import socket
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "numpy", "hydra-core", "omegaconf")


@cache
def commit() -> tuple[str, bool]:
    """The commit of this repository and whether tracked files differ from it; ("unknown", True) outside of git."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return "unknown", True


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


def host() -> str:
    """The name of this machine."""
    return socket.gethostname()
