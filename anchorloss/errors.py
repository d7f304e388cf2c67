"""The two kinds of trouble that end a command with one clear line instead of a traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

INSTALL = "training and analysis need the extra packages: pip install -e '.[experiments]'"
_OWN = ("", "anchorloss", "models", "hydra_plugins", "scripts", "train")


class UserError(Exception):
    """A mistake in what the user asked for: one line naming the key, the value and the remedy. Exit status 2."""


class RunError(Exception):
    """Trouble outside the user's request (disk full, a claim lost to another process): one line. Exit status 1."""


class ClaimLostError(RunError):
    """Another process has taken over a run that was trained here; it goes on there."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn `UserError` and a package that is not installed into status 2 and `RunError` into status 1, with one line.

    Raises: SystemExit with that status.
    """
    try:
        yield
    except UserError as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        raise SystemExit(2) from None
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in _OWN:
            raise
        print(f"error: {package} is not installed; {INSTALL}", file=sys.stderr)
        raise SystemExit(2) from None
    except RunError as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        raise SystemExit(1) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
