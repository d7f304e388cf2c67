"""Run cases on the simulated device, each in a process of its own, some with a fault planted in the code.

`python tests/simulated_cuda/run.py GUARD` reads lines of a case and, after a tab, the number of a fault, if any. It
answers each with a line of JSON. The guard has to be loaded before torch is imported, and torch before anything of the
project, so that a fault can be put into a module as it is imported.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib.util
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SECONDS = 600  # a fault may make a case wait for ever


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

    for line in sys.stdin:
        case, fault = line.rstrip("\n").split("\t")
        with tempfile.TemporaryFile("w+") as output:
            child = os.fork()
            if child == 0:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                _run(case, fault)
            _, status = os.waitpid(child, 0)
            output.seek(0)
            print(json.dumps({"status": status, "output": output.read()[-6000:]}), flush=True)


def _run(case: str, fault: str) -> None:
    """Run the case and end this process: status 0 if all is well."""
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    status = 1
    try:
        if fault:
            _plant(int(fault))
        from tests.simulated_cuda import cases, sweep_case

        {**vars(cases), **vars(sweep_case)}[f"case_{case}"]()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _plant(number: int) -> None:
    """Import the module of a fault with the fault in it."""
    from tests.simulated_cuda.faults import FAULTS

    fault = FAULTS[number]
    spec = importlib.util.spec_from_file_location(fault.module, fault.path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[fault.module] = module
    source = fault.path.read_text().replace(fault.old, fault.new)
    exec(compile(source, fault.path, "exec", dont_inherit=True), vars(module))


if __name__ == "__main__":
    main(sys.argv[1])
