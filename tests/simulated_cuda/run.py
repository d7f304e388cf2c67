"""Run cases on the simulated device, each in a process of its own, some with a fault planted in the code.

`python tests/simulated_cuda/run.py GUARD` reads lines of a case and the name of a fault, separated by a tab; no name is
the code as it is. It answers each with a line of JSON. The guard has to be loaded before torch is imported, and torch
before anything of the project, so that a fault can be put into a module as it is imported.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import json
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


class FaultyLoader(importlib.machinery.SourceFileLoader):
    """Imports a module with some of its text replaced."""

    def __init__(self, name: str, path: Path, old: str, new: str) -> None:
        super().__init__(name, str(path))
        source = path.read_text()
        if source.count(old) != 1:
            raise SystemExit(f"{path}: has {source.count(old)} times: {old}")
        self._code = compile(source.replace(old, new), str(path), "exec", dont_inherit=True)

    def get_code(self, fullname):
        return self._code


class FaultyFinder:
    """Finds the one module that has the fault."""

    def __init__(self, module: str, old: str, new: str) -> None:
        self._loader = FaultyLoader(module, ROOT / f"{module.replace('.', '/')}.py", old, new)

    def find_spec(self, name, path=None, target=None):
        if name != self._loader.name:
            return None
        return importlib.machinery.ModuleSpec(name, self._loader, origin=self._loader.path)


def main(guard: str) -> None:
    sys.path[:1] = [str(ROOT)]  # in place of this folder
    library = ctypes.CDLL(guard)
    import torch

    library.install()
    torch.set_num_threads(1)
    # Of those that a case imports, what takes longest.
    import hydra  # noqa: F401
    import pandas  # noqa: F401
    import pydantic  # noqa: F401
    import pytest  # noqa: F401
    import torch._dynamo

    from tests.simulated_cuda.faults import FAULTS

    known = {fault.name: fault for fault in FAULTS}
    for line in sys.stdin:
        case, name = line.rstrip("\n").split("\t")
        with tempfile.TemporaryFile("w+") as output:
            child = os.fork()
            if child == 0:
                _run(case, known[name] if name else None, output)
            _, status = os.waitpid(child, 0)
            output.seek(0)
            text = output.read()
        print(json.dumps({"status": status, "output": text[-6000:]}), flush=True)


def _run(case, fault, output):
    """Run the case and end this process: status 0 if all is well."""
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    status = 1
    # A fault may make a case wait for ever.
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(600)
    try:
        if fault is not None:
            sys.meta_path.insert(0, FaultyFinder(fault.module, fault.old, fault.new))
        from tests.simulated_cuda import cases, sweep_cases

        found = [vars(module).get(f"case_{case}") for module in (cases, sweep_cases)]
        (function,) = filter(None, found)
        function()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _give_up(*_):
    raise TimeoutError("not done in ten minutes")


if __name__ == "__main__":
    main(sys.argv[1])
