"""`train.py` as a user meets it: what runs, what is skipped, and mistakes in one line."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from anchorloss.runs.folder import read_runs
from tests.commands import call
from tests.conftest import ROOT, SMALL
from tests.in_process import settings
from tests.run_folders import finish_run, interrupt_run


def test_trains_every_seed_once_and_skips_them_the_second_time(train, tmp_path):
    overrides = [*SMALL, "loss=anchor_bg", "seeds=[0,1]"]
    train(*overrides, check=True)
    runs = read_runs(tmp_path / "results", "scratch")
    assert [(run.loss, run.seed, run.state) for run in runs] == [
        ("anchor_bg", 0, "finished"),
        ("anchor_bg", 1, "finished"),
    ]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").rglob("*") if path.is_file()}
    again = train(*overrides, check=True)
    assert again.stdout.count("skipped") == 2
    top1 = [run.record.top1 for run in runs]
    told = f"anchor_bg-resnet8: Top-1 {np.mean(top1):.2f} ± {np.std(top1, ddof=1):.2f} %, Top-5 "
    assert again.stdout.splitlines()[-1].startswith(told)
    assert {
        path: path.stat().st_mtime_ns for path in (tmp_path / "results").rglob("*") if path.is_file()
    } == before


def test_a_multirun_trains_all_losses(train, tmp_path):
    train(*SMALL, "-m", "loss=bce,anchor_bg", "optim.epochs=1", check=True)
    assert [run.loss for run in read_runs(tmp_path / "results", "scratch")] == ["anchor_bg", "bce"]
    assert {path.name for path in tmp_path.iterdir()} == {"results"}


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["optim.lrr=1"], "optim.lrr"),
        (["loss.gamma=-1"], "loss.gamma=-1"),
        (["loss.gamma=x"], "loss.gamma=x"),
        (["loss=anchor_bg", "loss.slack=2"], "loss.slack=2"),
        (["loss=anchor_bg", "loss.anchor=sideways"], "sideways"),
        (["optim.lr=fast"], "optim.lr=fast"),
        (["model.shortcut=C"], "model.shortcut=C"),
        (["seeds=[1,1]"], "seeds=[1, 1]"),
        (["seeds=3"], "seeds=3"),
        (["data.evaluate_on=validation"], "data.evaluate_on=validation"),
        (
            ["data=cifar100", "data.training_images=null", "data.test_images=null", "data.root=nowhere"],
            "nowhere",
        ),
        (["lossbce"], "lossbce"),
        (["-m", "loss=bce,anchor_bg", "optim.epochs=1,0"], "optim.epochs=0"),
        (["-m", "experiment.name=a,b"], "experiment.name=a,b: cannot be swept"),
        (["-m", "threads=1,2"], "threads=1,2: cannot be swept"),
        (["loss=softmax", "+loss.reduction=sum"], "loss.reduction=sum"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
# More of them: tests/config/test_hostile.py and tests/hostile/.
def test_a_mistake_is_one_line_status_2_and_nothing_written(tmp_path, overrides, named):
    small = [value for value in SMALL if not (value.startswith("data") and "data=cifar100" in overrides)]
    result = call("train.py", *small, *overrides, folder=tmp_path)
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert named in line
    assert list(tmp_path.iterdir()) == []


def test_help_answers_at_once_and_imports_nothing_heavy():
    took = []
    for _ in range(3):
        before = os.times()
        shown = subprocess.run(
            [sys.executable, ROOT / "train.py", "--help"], capture_output=True, text=True, check=True
        )
        after = os.times()
        # The processor's time, which other work on the machine does not lengthen much.
        took.append(sum(after[2:4]) - sum(before[2:4]))
    assert min(took) < 2.5
    assert "loss: anchor_bg" in shown.stdout
    listed = subprocess.run(
        [sys.executable, "-X", "importtime", ROOT / "train.py", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for heavy in ("torch", "pandas", "wandb", "scipy"):
        assert f" {heavy}\n" not in listed.stderr


def test_a_diverged_run_does_not_stop_the_sweep_and_sets_the_status(train, tmp_path):
    sweep = [*SMALL, "-m", "loss=bce,anchor_bg", "optim.lr=1e30,0.1", "optim.epochs=1"]
    result = train(*sweep)
    assert result.returncode == 1
    states = [(run.loss, run.state) for run in read_runs(tmp_path / "results", "scratch")]
    assert sorted(states) == [
        ("anchor_bg", "failed"),
        ("anchor_bg", "finished"),
        ("bce", "failed"),
        ("bce", "finished"),
    ]
    again = train(*sweep)
    assert again.returncode == 1
    assert again.stdout.count("skipped") == 4
    retried = train(*sweep, "--retry-failed")
    assert retried.returncode == 1
    kept = list((tmp_path / "results").rglob("failed-1.json"))
    assert len(kept) == 2


def test_logger_none_runs_where_wandb_is_not_installed(train, tmp_path, monkeypatch):
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "wandb.py").write_text("raise ImportError('not here')")
    monkeypatch.setitem(os.environ, "PYTHONPATH", str(tmp_path / "hidden"))
    train(*SMALL, "optim.epochs=1", "logger=none", check=True)


def test_a_dry_run_lists_what_would_be_done_and_writes_nothing(tmp_path):
    done, failed, waiting, begun = runs = settings("seeds=[0,1,2,3]", "loss=anchor_bg")
    finish_run(tmp_path, done)
    finish_run(tmp_path, failed, failed=True)
    interrupt_run(tmp_path, begun, epoch=1)
    before = sorted(tmp_path.rglob("*"))
    sweep = (*SMALL, "-m", "loss=anchor_bg", "loss.gamma=0.5,2", "seeds=[0,1,2,3]", "--dry-run")
    said = call("train.py", *sweep, f"results_dir={tmp_path}", folder=tmp_path).stdout
    assert "8 runs = losses anchor_bg x seeds 0, 1, 2, 3 x loss.gamma 0.5, 2.0" in said
    assert "  optim.epochs=2\n" in said
    for run, what in zip(
        runs,
        ("skipped: has finished", "skipped: has failed", "trained", "resumed after 1 epoch"),
        strict=True,
    ):
        assert f"{run.run}: {what} (loss.gamma=0.5, seed={run.seed})" in said
    assert said.count("(loss.gamma=2.0, ") == 4
    assert waiting.run in said
    again = call("train.py", *sweep, "--retry-failed", f"results_dir={tmp_path}", folder=tmp_path).stdout
    assert f"{failed.run}: trained again" in again
    assert sorted(tmp_path.rglob("*")) == before
