"""Run `train.py` or a script as a command line does, but in the test process: a hundred cost what one process costs."""

from __future__ import annotations

import io
import os
import runpy
import signal
import sys
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from hydra.core.global_hydra import GlobalHydra

from tests.conftest import ROOT


@dataclass
class Done:
    """What a command left: its exit status and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


def call(
    script: str, *arguments: object, folder: Path | None = None, encoding: str = "utf-8", seconds: int = 60
) -> Done:
    """Run `script` ("train.py", "status.py") in `folder`, on a terminal of that encoding, for so many seconds at most."""
    path = ROOT / script if script == "train.py" else ROOT / "scripts" / script
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True) for _ in range(2)]
    status: int | str | None = 0
    with (
        chdir(folder or ROOT),
        mock.patch.object(sys, "argv", [str(path), *map(str, arguments)]),
        mock.patch.object(sys, "stdout", streams[0]),
        mock.patch.object(sys, "stderr", streams[1]),
        mock.patch.dict(os.environ, {"COLUMNS": "80"}),
        time_limit(seconds),
    ):
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as end:
            status = end.code
        finally:
            GlobalHydra.instance().clear()
    stdout, stderr = (stream.buffer.getvalue().decode(encoding) for stream in streams)
    return Done(status if isinstance(status, int) else 0, stdout, stderr)


class Hang(BaseException):
    """A command has not ended in time. No `Exception`, which the command would turn into a line."""


@contextmanager
def time_limit(seconds: int):
    """Raise `Hang` after so many seconds."""

    def stop(*_: object) -> None:
        raise Hang(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
