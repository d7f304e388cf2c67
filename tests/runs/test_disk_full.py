"""A real file system without space: one line, status 1, what was there stays, and the run goes on later."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from anchorloss.runs.differences import same_result
from anchorloss.runs.folder import read_runs
from tests import processes
from tests.conftest import SMALL, command
from tests.in_process import data_of, finish, settings, start
from tests.small_disk import small_disk

RUN = (*SMALL, "loss=anchor_bg", "optim.epochs=6", "checkpoint_seconds=0.2")


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk", kibibytes=8192) as folder:
        yield folder


def fill(disk) -> None:
    """Leave no space, not a block."""
    with (disk / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(b"\0" * 4096)
        except OSError:
            pass


def go_on(disk, *, check=False) -> subprocess.CompletedProcess[str]:
    return processes.run(command(*RUN, f"results_dir={disk}/results"), cwd=disk, check=check)


def error_lines(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("error:") or "Traceback" in line]


def test_a_disk_that_fills_up_during_training_costs_nothing(disk, tmp_path):
    process = processes.Process(command(*RUN, f"results_dir={disk}/results"), cwd=disk)
    while not list(disk.rglob("checkpoint.pt")):
        time.sleep(0.02)
    fill(disk)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 1, errors
    (line,) = error_lines(errors)
    assert "No space left" in line
    (checkpoint,) = disk.rglob("checkpoint.pt")
    assert checkpoint.stat().st_size > 100_000
    assert not list(disk.rglob("record.json"))
    (disk / "filler").unlink()
    go_on(disk, check=True)
    (run,) = read_runs(disk / "results", "scratch")
    assert run.record.provenance.resumed == 1
    (undisturbed,) = settings(*RUN[len(SMALL) :])
    assert same_result(run.record, finish(start(undisturbed, data_of(undisturbed), tmp_path)))


def test_no_space_for_the_record_leaves_the_checkpoint(disk):
    """Stopped in its last epoch, a run is resumed on a disk that has no room for what a finished run writes."""
    process = processes.Process(command(*RUN, f"results_dir={disk}/results"), cwd=disk)
    while not any(len(path.read_text().splitlines()) >= 5 for path in disk.rglob("history.csv")):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    (checkpoint,) = disk.rglob("checkpoint.pt")
    whole = checkpoint.read_bytes()
    fill(disk)
    refused = go_on(disk)
    assert refused.returncode == 1, refused.stderr
    assert len(error_lines(refused.stderr)) == 1
    assert checkpoint.read_bytes() == whole
    (disk / "filler").unlink()
    go_on(disk, check=True)
    assert len(list(disk.rglob("record.json"))) == 1
