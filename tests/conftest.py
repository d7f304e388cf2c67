"""The small config that tests train, and `train.py` as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import processes

ROOT = Path(__file__).parent.parent
# The workers of `make test` share the cores out among themselves; read when torch is first imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests compute on the CPU, here and in the processes they start; `make test-cuda` lets them see a GPU.
if "TEST_CUDA" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
# Small enough for two seconds a run, with a last batch that is not full.
SMALL = (
    "data=synthetic",
    "data.training_images=300",
    "data.test_images=100",
    "model=resnet8",
    "optim=short",
    "optim.batch_size=64",
    "optim.epochs=2",
    "precision=fp32",
    "logger=none",
    "threads=1",
)


def command(*arguments: str) -> list[str]:
    """The command line of `train.py` with these arguments."""
    return [sys.executable, str(ROOT / "train.py"), *arguments]


@pytest.fixture(scope="session")
def cifar_root() -> Path:
    """The folder with the real CIFAR-100, unpacked, that CIFAR_ROOT names; skips the test where it is not set."""
    if not os.environ.get("CIFAR_ROOT"):
        pytest.skip("CIFAR_ROOT names no folder with an unpacked cifar-100-python")
    root = Path(os.environ["CIFAR_ROOT"])
    assert (root / "cifar-100-python" / "train").is_file(), f"CIFAR_ROOT={root}: holds no cifar-100-python"
    return root


@pytest.fixture
def train(tmp_path):
    """Run `train.py` in a folder of its own; `results_dir` is `tmp_path / "results"`."""

    def run(*arguments: str, check: bool = False, timeout: float = 280) -> subprocess.CompletedProcess[str]:
        return processes.run(
            command(*arguments, f"results_dir={tmp_path / 'results'}"),
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "200"},
            check=check,
            timeout=timeout,
        )

    return run
