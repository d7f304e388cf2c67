"""The CUDA path on a simulated device, bit for bit as on the CPU; and each planted fault is found."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from tests.conftest import ROOT
from tests.simulated_cuda.faults import FAULTS

HERE = Path(__file__).parent
CASES = ("diverged", "epochs", "failing", "losses", "sweep", "test_cuda", "textbook", "together")
# A case trains for seconds; a loaded machine takes ten times as long.
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="session")
def guard(tmp_path_factory):
    """The compiled guard.cpp, which the workers of pytest-xdist share."""
    import torch

    if torch.backends.cuda.is_built():
        pytest.skip("needs a torch built without CUDA")
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    torch_folder = Path(importlib.util.find_spec("torch").origin).parent
    if not (torch_folder / "include" / "ATen").exists():
        pytest.skip("needs the headers of torch")
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    library, libraries = folder / "guard.so", torch_folder / "lib"
    with FileLock(folder / "guard.lock"):
        if not library.exists():
            command = ["g++", "-std=c++20", "-O0", "-w", "-shared", "-fPIC", HERE / "guard.cpp"]
            command += [f"-I{torch_folder / 'include'}", f"-L{libraries}", f"-Wl,-rpath,{libraries}"]
            subprocess.run([*command, "-lc10", "-ltorch_cpu", "-o", library], check=True)
    return library


@pytest.fixture(scope="session")
def run(guard):
    """Run a case in a process of its own, with a fault if one is named: its status and output."""
    with subprocess.Popen(
        [sys.executable, HERE / "run.py", guard],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def ask(case, fault=""):
            process.stdin.write(f"{case}\t{fault}\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()


@pytest.mark.parametrize("case", CASES)
def test_on_the_simulated_device(run, case):
    result = run(case)
    assert result["status"] == 0, result["output"]


def test_every_fault_has_its_place():
    for fault in FAULTS:
        assert fault.case in CASES
        assert fault.path.read_text().count(fault.old) == 1, fault


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(FAULTS)), ids=lambda number: FAULTS[number].old.strip()[:40])
def test_a_planted_fault_is_found(run, number):
    case = FAULTS[number].case
    result = run(case, number)
    assert result["status"] != 0
    # By the case, not because the faulty module cannot be imported.
    assert f"case_{case}" in result["output"], result["output"]
