"""What ends a sweep before its runs have ended, and what it leaves: budgets, readers that go away, strange files."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
import torch

from anchorloss.config.parsing import parse
from anchorloss.errors import UserError
from anchorloss.runs.differences import same_result
from anchorloss.runs.folder import read_runs, run_folder
from anchorloss.sweep import executor
from anchorloss.sweep.executor import execute
from anchorloss.sweep.side_by_side import SideBySide
from anchorloss.sweep.signals import Signals
from tests.conftest import SMALL, command
from tests.in_process import composed, data_of, finish, start


def planned(results: Path, *overrides: str):
    """The plan and the execution of a small sweep that writes to `results`."""
    return parse(composed(*SMALL, *overrides, f"results_dir={results}"))


def train(results: Path, *overrides: str) -> None:
    """Train a small sweep in this process."""
    execute(*planned(results, *overrides))


def planned_folder(results: Path) -> Path:
    """The folder of a run that was planned, and stopped before its first step."""
    (run,), execution = planned(results, "minutes=1")
    execute([run], execution, time.monotonic() - 60)
    return run_folder(results, run.experiment, run.run)


def test_a_budget_of_time_ends_with_checkpoints_and_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    """Spent in the second epoch of two runs. Then the same command gives the records of an uninterrupted sweep."""
    sweep = ("loss=anchor_bg", "seeds=[0,1]", "concurrent=2")

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return 3600.0 if len(list(tmp_path.rglob("history.csv"))) == 2 else 0.0

    runs, execution = planned(tmp_path, *sweep, "minutes=30")
    with monkeypatch.context() as patch:
        patch.setattr(executor, "time", Clock)
        execute(runs, execution)
    output = capsys.readouterr().out
    assert "minutes=30" in output
    assert "2 of 2 runs unfinished" in output
    assert "same command again" in output
    assert len(list(tmp_path.rglob("checkpoint.pt"))) == 2
    assert not list(tmp_path.rglob("claim.lock"))
    train(tmp_path, *sweep, "minutes=300")
    assert "unfinished" not in capsys.readouterr().out
    for run in runs:
        (found,) = (each for each in read_runs(tmp_path, "scratch") if each.name == run.run)
        assert found.record.provenance.resumed == 1
        assert same_result(found.record, finish(start(run, data_of(run), tmp_path / "undisturbed")))


@pytest.mark.parametrize("minutes", ["-1", "nan", "inf"])
def test_a_budget_must_be_a_finite_number(tmp_path, minutes):
    with pytest.raises(UserError, match=f"minutes={minutes}"):
        planned(tmp_path, f"minutes={minutes}")


def test_training_goes_on_when_nobody_reads_its_output_any_more(tmp_path):
    process = subprocess.Popen(
        command(*SMALL, "optim.epochs=12", "checkpoint_seconds=0.2", "results_dir=results"),
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


def test_a_record_that_is_a_link_to_nothing_is_refused_at_once(tmp_path):
    """As in a clone of an annex whose content was not fetched; to train the run again would be in vain."""
    folder = planned_folder(tmp_path)
    (folder / "record.json").symlink_to("../annex/object")
    with pytest.raises(UserError, match=r"record\.json: a link to \.\./annex/object"):
        train(tmp_path)


@pytest.mark.parametrize("name", ["config.yaml", "checkpoint.pt"])
def test_a_file_that_cannot_be_read_is_refused_and_kept(tmp_path, name):
    folder = planned_folder(tmp_path)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("/proc/self/mem")
    with pytest.raises(UserError, match=f"{name}: cannot be read"):
        train(tmp_path)
    assert (folder / name).is_symlink()
    assert not (folder / "record.json").exists()
    assert not (folder / "claim.lock").exists()


def test_an_empty_claim_does_not_block_its_run(tmp_path):
    folder = planned_folder(tmp_path)
    (folder / "claim.lock").touch()
    train(tmp_path)
    assert (folder / "record.json").exists()


def test_when_one_run_ends_the_sweep_by_an_error_the_others_are_saved(tmp_path):
    """One run cannot write its history at the end of its first epoch."""
    sweep = ("seeds=[0,1]", "concurrent=2")
    runs, execution = planned(tmp_path, *sweep, "minutes=1")
    execute(runs, execution, time.monotonic() - 60)
    folders = [run_folder(tmp_path, run.experiment, run.run) for run in runs]
    (folders[1] / "history.csv").mkdir()
    with pytest.raises(UserError, match="Is a directory"):
        train(tmp_path, *sweep)
    assert (folders[0] / "checkpoint.pt").exists()
    assert not list(tmp_path.rglob("claim.lock"))


def test_an_answer_comes_while_a_step_computes_and_what_is_ignored_stays_ignored(capfd):
    """As the backward pass of a large network on a CPU, a step may take half a minute in one call of C++."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals("stopping") as signals:
            threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGHUP]).start()
            threading.Timer(0.6, os.kill, [os.getpid(), signal.SIGUSR1]).start()
            answered = SideBySide(torch.device("cpu"), 1).each(lambda _: look_for_an_answer(capfd), [0])
        assert answered == ["stopping"]
        assert signals.received == signal.SIGUSR1
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def look_for_an_answer(capfd) -> str:
    """A step that ends when it has been answered."""
    text = ""
    while not text:
        time.sleep(0.05)
        text = capfd.readouterr().err.strip()
    return text
