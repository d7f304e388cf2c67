"""What a launcher makes of a sweep: how many workers, their command line, and what a worker leaves to others."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from anchorloss.runs.claims import FILE, Claim
from anchorloss.runs.folder import read_runs
from anchorloss.sweep.plan import folder_of, make_folder
from anchorloss.sweep.workers import gpu_names
from tests.commands import call
from tests.conftest import SMALL, command
from tests.in_process import settings
from tests.processes import Process

SWEEP = ("-m", *SMALL, "loss=bce,anchor_bg", "hydra/launcher=processes")


@pytest.fixture
def started(monkeypatch):
    """The command line and environment of each process that would be started; all end at once, with status 0."""
    found = []

    class Start(subprocess.Popen):
        def __init__(self, arguments, **more):
            if arguments[0] == sys.executable:
                found.append((arguments, more["env"]))
                arguments = ["true"]
            super().__init__(arguments, **more)

    monkeypatch.setattr(subprocess, "Popen", Start)
    monkeypatch.setenv("PYTHONPATH", "")
    return found


@pytest.mark.parametrize(("count", "processes", "share"), [(8, 4, 1), (3, 3, 2), (1, 1, 4)])
def test_there_are_never_more_processes_than_runs(tmp_path, started, count, processes, share):
    done = call("train.py", *SWEEP, "seeds=[0,1]", f"hydra.launcher.count={count}", folder=tmp_path)
    assert done.returncode == 1
    assert "4 of 4 runs without a record" in done.stderr
    assert len(started) == processes
    assert all(f"hydra.launcher.share={share}" in arguments for arguments, _ in started)


def test_a_worker_gets_what_every_machine_understands_alike(tmp_path, started):
    overrides = ["precision=auto" if each.startswith("precision") else each for each in SWEEP]
    overrides = [each for each in overrides if each != "threads=1"]
    call("train.py", *overrides, "results_dir=a 'b", "+hydra.launcher.x=1", "--retry-failed", folder=tmp_path)
    assert not started, "a setting that the launcher has not is refused"
    call("train.py", *overrides, "results_dir='a,b'", "--retry-failed", folder=tmp_path)
    arguments, environment = started[0]
    (precision,) = {run.precision for run in settings("precision=auto")}
    assert "-m" in arguments
    assert [each for each in arguments[2:] if each != "-m"] == [
        *(each for each in overrides[1:] if not each.startswith("hydra")),
        "results_dir='a,b'",
        "retry_failed=true",
        "hydra/launcher=here",
        "retry_failed=false",
        f"results_dir='{tmp_path}/a,b'",
        f"data.root='{tmp_path}/data'",
        f"precision='{precision}'",
        "hydra.launcher.share=1",
        "threads=1",
    ]
    assert environment["TQDM_POSITION"] == "1"


def test_a_worker_leaves_what_living_processes_train(tmp_path):
    """It trains what nobody has, ends with status 0, and says nothing of the plan."""
    results = tmp_path / "results"
    held, free = settings("seeds=[0,1]")
    execution = SimpleNamespace(results_dir=results)
    make_folder(held, execution)
    claim = Claim(folder_of(held, execution))
    assert claim.acquire()
    worker = ("-m", *SMALL, "seeds=[0,1]", "hydra.launcher.share=1", f"results_dir={results}")
    process = Process(command(*worker), cwd=tmp_path, merge=True)
    begun = time.monotonic()
    while process.poll() is None and time.monotonic() < begun + 200:
        time.sleep(0.3)
        os.utime(claim.folder / FILE)  # as its owner does every ten seconds
    output, _ = process.communicate(timeout=1)
    claim.release()
    assert process.returncode == 0, output
    assert [run.name for run in read_runs(results, "scratch") if run.record] == [free.run]
    assert output.count("Top-1") == 1
    assert "are done" not in output


def test_processes_share_out_the_gpus_that_this_one_may_use():
    """Slurm and people say which by CUDA_VISIBLE_DEVICES, in numbers or in names."""
    assert gpu_names(3, None) == ["0", "1", "2"]
    assert gpu_names(2, "2, 3") == ["2", "3"]
    assert gpu_names(1, "GPU-8f6b,GPU-0000") == ["GPU-8f6b"]
    assert gpu_names(0, None) == []
