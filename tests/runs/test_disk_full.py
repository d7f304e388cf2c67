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

RUN = (*SMALL, "loss=anchor_bg", "optim.epochs=6", "checkpoint_seconds=0.2")


@pytest.fixture
def small_disk(tmp_path):
    """A mounted tmpfs of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"needs to mount a tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


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


def test_a_disk_that_fills_up_during_training_costs_nothing(small_disk, tmp_path):
    process = processes.Process(command(*RUN, f"results_dir={small_disk}/results"), cwd=small_disk)
    while not list(small_disk.rglob("checkpoint.pt")):
        time.sleep(0.02)
    fill(small_disk)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 1, errors
    (line,) = error_lines(errors)
    assert "No space left" in line
    (checkpoint,) = small_disk.rglob("checkpoint.pt")
    assert checkpoint.stat().st_size > 100_000
    assert not list(small_disk.rglob("record.json"))
    (small_disk / "filler").unlink()
    go_on(small_disk, check=True)
    (run,) = read_runs(small_disk / "results", "scratch")
    assert run.record.provenance.resumed == 1
    (undisturbed,) = settings(*RUN[len(SMALL) :])
    assert same_result(run.record, finish(start(undisturbed, data_of(undisturbed), tmp_path)))


def test_no_space_for_the_record_leaves_the_checkpoint(small_disk):
    """Stopped in its last epoch, a run is resumed on a disk that has no room for what a finished run writes."""
    process = processes.Process(command(*RUN, f"results_dir={small_disk}/results"), cwd=small_disk)
    while not any(len(path.read_text().splitlines()) >= 5 for path in small_disk.rglob("history.csv")):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    (checkpoint,) = small_disk.rglob("checkpoint.pt")
    whole = checkpoint.read_bytes()
    fill(small_disk)
    refused = go_on(small_disk)
    assert refused.returncode == 1, refused.stderr
    assert len(error_lines(refused.stderr)) == 1
    assert checkpoint.read_bytes() == whole
    (small_disk / "filler").unlink()
    go_on(small_disk, check=True)
    assert len(list(small_disk.rglob("record.json"))) == 1
