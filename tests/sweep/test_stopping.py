"""What ends a sweep before its runs have ended, and what it leaves: budgets, readers that go away, strange files."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from anchorloss.runs.store import read_runs, same_result
from tests.conftest import SMALL, command
from tests.in_process import finish, settings, start, workplace


def folders(results: Path) -> list[Path]:
    return sorted((results / "runs" / "scratch").iterdir())


def test_a_budget_of_time_ends_with_checkpoints_and_status_0(train, tmp_path):
    """Then the same command, without it, gives the records of an uninterrupted sweep."""
    sweep = (*SMALL, "loss=anchor_bg", "seeds=[0,1]", "optim.epochs=40", "concurrent=2")
    results = tmp_path / "results"
    stopped = train(*sweep, "minutes=0.0001", timeout=300)
    assert stopped.returncode == 0, stopped.stderr
    assert "2 of 2 runs unfinished" in stopped.stdout
    assert "same command again" in stopped.stdout
    # Enough for a start and some steps.
    minutes = 0.3
    while not list(results.rglob("checkpoint.pt")):
        stopped = train(*sweep, f"minutes={minutes}", timeout=600)
        assert stopped.returncode == 0, stopped.stderr
        minutes *= 2
    assert not list(results.rglob("claim.lock"))
    if not list(results.rglob("record.json")):
        assert "2 of 2 runs unfinished" in stopped.stdout
    train(*sweep, check=True, timeout=600)
    for run in settings(*sweep[len(SMALL) :]):
        (found,) = (each for each in read_runs(results, "scratch") if each.name == run.run)
        assert found.record.provenance.resumed >= 1
        assert same_result(found.record, finish(start(run, workplace(run), tmp_path / "undisturbed")))


def test_a_budget_must_be_a_number(train):
    for minutes in ("-1", "nan", "soon"):
        refused = train(*SMALL, f"minutes={minutes}")
        assert refused.returncode == 2
        (line,) = refused.stderr.splitlines()
        assert "minutes" in line


def test_training_goes_on_when_nobody_reads_its_output_any_more(tmp_path):
    process = subprocess.Popen(
        command(*SMALL, "optim.epochs=30", "checkpoint_seconds=0.2", "results_dir=results"),
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    while not list(tmp_path.rglob("checkpoint.pt")):
        assert process.poll() is None
        time.sleep(0.05)
    process.stdout.close()
    process.stderr.close()
    assert process.wait(timeout=250) == 0
    (run,) = read_runs(tmp_path / "results", "scratch")
    assert run.state == "finished"
    assert run.record.provenance.resumed == 0


def test_a_record_that_is_a_link_to_nothing_is_refused_at_once(train, tmp_path):
    """As in a clone of an annex whose content was not fetched; to train the run again would be in vain."""
    train(*SMALL, "optim.epochs=1", "minutes=0.0001", check=True)
    (folder,) = folders(tmp_path / "results")
    (folder / "record.json").symlink_to("../annex/object")
    refused = train(*SMALL, "optim.epochs=1")
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert "record.json: a link to ../annex/object" in line


@pytest.mark.parametrize("name", ["config.yaml", "checkpoint.pt"])
def test_a_file_that_cannot_be_read_is_refused_and_kept(train, tmp_path, name):
    train(*SMALL, "optim.epochs=1", "minutes=0.0001", check=True)
    (folder,) = folders(tmp_path / "results")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("/proc/self/mem")
    refused = train(*SMALL, "optim.epochs=1")
    assert refused.returncode == 2, refused.stderr
    line = refused.stderr.splitlines()[-1]
    assert f"{name}: cannot be read" in line
    assert (folder / name).is_symlink()
    assert not (folder / "record.json").exists()


def test_an_empty_claim_does_not_block_its_run(train, tmp_path):
    train(*SMALL, "optim.epochs=1", "minutes=0.0001", check=True)
    (folder,) = folders(tmp_path / "results")
    (folder / "claim.lock").touch()
    train(*SMALL, "optim.epochs=1", check=True)
    assert (folder / "record.json").exists()
