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

from tests.conftest import ROOT
from tests.simulated_cuda.faults import FAULTS

HERE = Path(__file__).parent
CASES = (
    "benchmark",
    "capture_refused",
    "diverged",
    "epochs",
    "failing",
    "losses",
    "resume",
    "step_count",
    "sweep",
    "sweep_with_failures",
    "textbook",
    "together",
    "warm_up_of_the_rate",
)
# A case trains for seconds; a loaded machine takes ten times as long.
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="session")
def guard(tmp_path_factory):
    """The compiled guard.cpp."""
    import torch

    if torch.backends.cuda.is_built():
        pytest.skip("needs a torch built without CUDA")
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    library = tmp_path_factory.mktemp("guard") / "guard.so"
    folder = Path(importlib.util.find_spec("torch").origin).parent
    if not (folder / "include" / "ATen").exists():
        pytest.skip("needs the headers of torch")
    libraries = folder / "lib"
    command = ["g++", "-std=c++20", "-O0", "-w", "-shared", "-fPIC", HERE / "guard.cpp", "-o", library]
    command += [
        f"-I{folder / 'include'}",
        f"-L{libraries}",
        f"-Wl,-rpath,{libraries}",
        "-lc10",
        "-ltorch_cpu",
    ]
    subprocess.run(command, check=True)
    return library


def run(guard, case, *faults):
    """What became of the case as the code is, or with each fault: its status and output."""
    done = subprocess.run(
        [sys.executable, HERE / "run.py", guard, case, *(faults or [""])],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("case", CASES)
def test_on_the_simulated_device(guard, case):
    (result,) = run(guard, case)
    assert result["status"] == 0, result["output"]


def test_every_fault_is_named_once_and_of_a_case():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert {fault.case for fault in FAULTS} <= set(CASES)
    for fault in FAULTS:
        source = (ROOT / f"{fault.module.replace('.', '/')}.py").read_text()
        assert source.count(fault.old) == 1, fault.name


@pytest.mark.slow
@pytest.mark.parametrize("case", dict.fromkeys(fault.case for fault in FAULTS))
def test_planted_faults_are_found(guard, case):
    faults = [fault.name for fault in FAULTS if fault.case == case]
    results = run(guard, case, *faults)
    assert [result["fault"] for result in results] == faults
    assert not [result["fault"] for result in results if result["status"] == 0]
