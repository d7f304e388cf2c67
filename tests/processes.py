"""Commands in processes of their own that do not import torch anew: each is forked from one that has.

What a process is to a test stays: its own memory, signals, working directory, environment, output and exit status. Only
what must be seen at the very start of Python, such as which modules a command imports, needs a new interpreter.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parent.parent
_OWN = ("anchorloss", "hydra_plugins", "models")
_PRELOAD = [
    "torch._dynamo",
    "scipy.stats",
    "hydra",
    "anchorloss.sweep.executor",
    "anchorloss.sweep.verify",
    "anchorloss.analysis.report",
    "tests.processes",
]
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(_PRELOAD)


class Process:
    """A Python script that runs in a forked process; used like `subprocess.Popen`."""

    def __init__(
        self,
        arguments: Sequence[object],
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        *,
        merge: bool = False,
    ) -> None:
        """Start it.

        Args:
            arguments: The interpreter, which is ignored; a script, `-m` and a module, or `-c` and code; arguments.
            cwd: Its working directory.
            env: Its environment, default this process's.
            merge: Take what it writes on stderr for output on stdout.
        """
        self.args = [str(argument) for argument in arguments]
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._output = [
            Path(self._folder.name) / name for name in ("stdout", "stdout" if merge else "stderr")
        ]
        for path in self._output:
            path.touch()
        work = (self.args[1:], cwd or Path.cwd(), dict(os.environ if env is None else env), self._output)
        self._process = _FORKS.Process(target=_work, args=work)
        # The processes fork from a server that is started with the first of them.
        with mock.patch.dict(os.environ, OMP_NUM_THREADS="1"):
            self._process.start()
        self.pid: int = self._process.pid or 0
        self.kill = self._process.kill

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end, and return what it wrote on stdout and on stderr."""
        self.wait(timeout)
        stdout, stderr = (path.read_text() for path in self._output)
        return stdout, stderr if self._output[0] != self._output[1] else ""

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def run(
    arguments: Sequence[object],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = False,
    timeout: float = 280,
) -> subprocess.CompletedProcess[str]:
    """Run a script to its end, as `subprocess.run` does with `capture_output=True, text=True`."""
    process = Process(arguments, cwd, env)
    try:
        stdout, stderr = process.communicate(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    done = subprocess.CompletedProcess(process.args, process.wait(), stdout, stderr)
    if check and done.returncode:
        raise AssertionError(f"{process.args}: status {done.returncode}\n{stdout}{stderr}")
    return done


def _work(arguments: list[str], folder: Path, environment: dict[str, str], output: list[Path]) -> None:
    """What the forked process does: take on environment, folder and output, then be the script."""
    for number, path in enumerate([os.devnull, *output]):
        file = os.open(path, os.O_RDWR | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 (it lives as long as the process)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    own = [path for path in environment.get("PYTHONPATH", "").split(":") if path]
    first, *others = arguments
    try:
        if first in ("-m", "-c"):
            sys.path[:0] = [str(folder), *own]
            sys.argv = [first, *others[1:]]
            if first == "-m":
                runpy.run_module(others[0], run_name="__main__", alter_sys=True)
            else:
                exec(others[0], {"__name__": "__main__"})
        else:
            script = Path(first).resolve()
            sys.path[:0] = [str(script.parent), *own]
            sys.argv = arguments
            if not script.is_relative_to(ROOT):  # of a copy of this repository, with modules of its own
                sys.path[:] = [path for path in sys.path if path and Path(path) != ROOT]
                for name in [name for name in sys.modules if name.partition(".")[0] in _OWN]:
                    del sys.modules[name]
            runpy.run_path(str(script), run_name="__main__")
    finally:
        with suppress(OSError):
            atexit._run_exitfuncs()
