"""A record checked by training its run again."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from anchorloss.device import describe, processor_kind, resolve_device
from anchorloss.runs.folder import read_record, read_runs
from anchorloss.sweep.verify import rerun
from tests import processes
from tests.conftest import ROOT, SMALL
from tests.run_folders import edit_record

RECORDED = "table1_small"


def again(run: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script on a run folder."""
    return processes.run(["python", ROOT / "scripts" / "rerun.py", run, *arguments])


@pytest.fixture
def run_folder(train, tmp_path) -> Path:
    train(*SMALL, "loss=anchor_bg", "seeds=[3]", check=True)
    return read_runs(tmp_path / "results", "scratch")[0].folder


@pytest.mark.parametrize("part", [[], ["--first-epoch"]])
def test_a_run_trained_again_is_the_same(run_folder, part):
    result = again(run_folder, *part)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_first_epoch_may_be_the_only_one(train, tmp_path):
    train(*SMALL, "optim.epochs=1", check=True)
    (run,) = read_runs(tmp_path / "results", "scratch")
    assert again(run.folder, "--first-epoch").returncode == 0


def test_a_record_that_says_something_else_is_found_out(run_folder):
    """Another loss in the first epoch, with its checksum, contradicts nothing else in the run folder."""
    record = json.loads((run_folder / "record.json").read_text())
    header, first, *others = (run_folder / "history.csv").read_text().splitlines()
    cells = first.split(",")
    cells[2] = str(float(cells[2]) + 0.001)
    history = "\n".join([header, ",".join(cells), *others, ""]).encode()
    (run_folder / "history.csv").write_bytes(history)
    record["files"]["history.csv"] = f"sha256:{hashlib.sha256(history).hexdigest()}"
    edit_record(run_folder, files=record["files"])
    result = again(run_folder)
    assert result.returncode == 1, result.stderr
    assert f"{record['files']['history.csv']} in the record" in result.stdout.replace('"', "")


def test_a_run_kept_elsewhere_is_not_trained_twice(run_folder, tmp_path):
    assert again(run_folder, "--into", str(tmp_path / "again")).returncode == 0
    copy = read_runs(tmp_path / "again", "scratch")[0]
    assert copy.record is not None
    begun = copy.record.provenance.started
    assert again(run_folder, "--into", str(tmp_path / "again")).returncode == 0
    assert read_record(copy.folder).provenance.started == begun


def test_a_folder_without_a_record_is_one_line(tmp_path):
    result = again(tmp_path)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1


@pytest.mark.timeout(900)
def test_the_first_epoch_of_a_recorded_real_run_comes_out_again(cifar_root):
    """Bit for bit on the record's processor; another one rounds differently, and drifts by no more than a little."""
    found = [
        (run.folder, run.record.provenance.device)
        for run in read_runs(ROOT / "results", RECORDED)
        if run.record is not None
    ]
    processor = processor_kind(describe(resolve_device("cpu")))
    here = [folder for folder, device in found if processor_kind(device) == processor]
    _, differences, _ = rerun(
        here[0] if here else found[0][0], str(cifar_root), first_epoch=True, device="cpu"
    )
    if here:
        assert differences == {}
    for key in ("train_loss", "train_top1"):
        recorded, now = (float(json.loads(value)) for value in differences.get(key, ("1", "1")))
        assert now == pytest.approx(recorded, rel=0.05)
