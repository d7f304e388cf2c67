"""Run cases on the simulated device, each in a process of its own, some with a fault planted in the code.

python tests/simulated_cuda/run.py GUARD CASE FAULT...: prints a line of JSON for each fault of faults.py; "" is the code
as it is. The guard has to be loaded before torch is imported first, and torch before anything of the project, so that a
fault can be put into a module as it is imported.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import json
import os
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


def main(guard: str, case: str, faults: list[str]) -> None:
    sys.path[:1] = [str(ROOT)]  # in place of this folder
    library = ctypes.CDLL(guard)
    import torch

    library.install()
    torch.set_num_threads(1)
    # Of those that a case imports, what takes longest.
    import hydra  # noqa: F401
    import pandas  # noqa: F401

    from tests.simulated_cuda.faults import FAULTS

    known = {fault.name: fault for fault in FAULTS}
    for name in faults:
        with tempfile.TemporaryFile("w+") as output:
            child = os.fork()
            if child == 0:
                _run(case, known[name] if name else None, output)
            _, status = os.waitpid(child, 0)
            output.seek(0)
            text = output.read()
        print(json.dumps({"fault": name, "status": status, "output": text[-6000:]}), flush=True)


def _run(case, fault, output):
    """Run the case and end this process: status 0 if all is well."""
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    status = 1
    try:
        if fault is not None:
            sys.meta_path.insert(0, FaultyFinder(fault.module, fault.old, fault.new))
        from tests.simulated_cuda import cases

        getattr(cases, f"case_{case}")()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
