"""The errors that end a command, and `one_line_errors`, which turns any exception into one line and an exit status."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb

from anchorloss.terminal import printable, safe_output

INSTALL = "training and analysis need the extra packages: pip install -e '.[experiments]'"
# Set it to see the traceback of an error.
TRACEBACK = "ANCHORLOSS_TRACEBACK"
# What a wrong path gives, and what to do about it.
REMEDIES = {
    errno.ENOENT: "name one that exists",
    errno.ENOTDIR: "name a folder",
    errno.EISDIR: "name a file",
    errno.EACCES: "choose one that you may read and write",
    errno.EPERM: "choose one that you may read and write",
    errno.EROFS: "choose a folder that can be written to",
    errno.EEXIST: "choose another name",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "remove the circular link",
    errno.ENXIO: "name a regular file",
    errno.EINVAL: "choose another name",
}
_OWN = ("", "anchorloss", "models", "hydra_plugins", "scripts", "train")
_MEMORY = re.compile(
    r"out of memory|not enough memory|(can't|cannot) allocate memory|failed to map segment|bad_alloc", re.I
)


class UserError(Exception):
    """A mistake in the request. The message names the key, the value and the remedy. Exit status 2."""


class RunError(Exception):
    """A failure that is not a mistake in the request: a full disk, a claim lost to another process. Exit status 1."""


class ClaimLostError(RunError):
    """Another process has taken over a run that was trained here, and continues it."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End a command with one line on stderr and an exit status, whatever is raised in it.

    Output that cannot be written does not interrupt the command (see `terminal.safe_output`).

    Raises:
        SystemExit: With status 2 for a mistake in the request, 130 for Ctrl-C, and 1 for anything else, including
            output that could not be written. A reader that closes the pipe is no error.
    """
    with safe_output() as stdout:
        try:
            try:
                Path.cwd()
            except OSError as error:
                raise UserError(f"the current folder: {error.strerror}; change to one that exists") from None
            yield
        except SystemExit as end:
            if end.code:
                raise
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise SystemExit(130) from None
        except Exception as error:
            if os.environ.get(TRACEBACK):
                raise
            status, line = explain(error)
            print(f"error: {printable(' '.join(line.split()), 1200)}", file=sys.stderr)
            raise SystemExit(status) from error
        stdout.flush()
        if stdout.failure is not None and not isinstance(stdout.failure, BrokenPipeError):
            print(f"error: standard output: {_reason(stdout.failure)}", file=sys.stderr)
            raise SystemExit(1)


def explain(error: Exception) -> tuple[int, str]:
    """The exit status of an exception, and its message."""
    text = str(error)
    if isinstance(error, UserError):
        return 2, text
    if is_about_memory(error):
        text = text or "no more could be allocated"
        return 1, f"out of memory ({text}); free some, or train fewer runs at once"
    if isinstance(error, RunError):
        return 1, text
    if isinstance(error, RecursionError):
        return 2, f"a config or a record is nested too deeply ({text}); flatten it"
    if isinstance(error, UnicodeDecodeError):
        return 2, f"a file is not UTF-8 text ({text}); save it as UTF-8"
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if package not in _OWN:
            return 2, f"{package} is not installed; {_install()}"
    if isinstance(error, OSError):
        place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        return (2 if place and error.errno in REMEDIES else 1), f"{place}{_reason(error)}"
    *_, (frame, number) = walk_tb(error.__traceback__)
    where = f"{Path(frame.f_code.co_filename).name}:{number}"
    return 1, f"unexpected {type(error).__name__}: {text} ({where}); {TRACEBACK}=1 shows the traceback"


def _install() -> str:
    environment = Path(__file__).resolve().parents[1] / ".venv"
    script = environment / "bin" / "activate"
    if script.is_file() and Path(sys.prefix).resolve() != environment.resolve():
        return f"the checkout has an environment: source {os.path.relpath(script)}"
    return INSTALL


def is_about_memory(error: Exception) -> bool:
    """Whether memory, of the machine or a device, has run out."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return isinstance(error, (RuntimeError, ImportError)) and _MEMORY.search(str(error)) is not None


def _reason(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    remedy = REMEDIES.get(error.errno or 0)
    return f"{reason}; {remedy}" if remedy else reason
