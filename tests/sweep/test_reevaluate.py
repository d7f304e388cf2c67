"""Weights that recorded runs kept, evaluated again: equal here, refused when changed, wrong when they are others."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import models
from anchorloss.errors import UserError
from anchorloss.runs.files import sha256
from anchorloss.runs.folder import PREDICTIONS, WEIGHTS, read_runs
from anchorloss.sweep import executor, plan
from anchorloss.sweep.verify import reevaluate, with_weights
from tests import processes
from tests.conftest import ROOT, SMALL
from tests.in_process import composed
from tests.run_folders import edit_record, finish_run, make_settings


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A results folder with two runs and their weights: BCE of seed 0 and (ii) of seed 1."""
    results = tmp_path_factory.mktemp("trained")
    for chosen in (("loss=bce", "seeds=[0]"), ("loss=anchor_bg", "seeds=[1]")):
        config = composed(*SMALL, *chosen, "precision=bf16", "keep_weights=true", f"results_dir={results}")
        executor.execute(*plan.plan([config]))
    return results


@pytest.fixture
def runs(trained, tmp_path):
    """Copies of the two run folders, to be changed."""
    shutil.copytree(trained, tmp_path / "results")
    return with_weights(tmp_path / "results", "scratch")


def evaluate(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return processes.run(["python", "scripts/evaluate.py", *arguments], cwd=ROOT)


def change(folder: Path, name: str, content: bytes) -> None:
    """Replace a file of a run, and its checksum in the record with it."""
    (folder / name).write_bytes(content)
    files = json.loads((folder / "record.json").read_text())["files"]
    edit_record(folder, files={**files, name: sha256(content)})


def test_the_weights_give_every_recorded_number(trained):
    done = evaluate("--experiment", "scratch", "--results-dir", trained)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("  0 of 100 predictions differ from the record's\n") == 2
    for run in read_runs(trained, "scratch"):
        assert run.record is not None
        assert f"{run.name}: Top-1 {run.record.top1:.2f} %, Top-5 {run.record.top5:.2f} %\n" in done.stdout
    for found in reevaluate(with_weights(trained, "scratch"), "nowhere"):
        assert found.elsewhere is None
        assert found.problem is None


@pytest.mark.timeout(600)
def test_committed_weights_give_the_recorded_numbers_on_the_real_images(cifar_root):
    folder = with_weights(ROOT / "results", "table1_resnet20")[0]
    done = evaluate(folder, "--data-root", cifar_root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of 10,000 predictions differ from the record's" in done.stdout


def test_one_flipped_byte_is_refused(runs):
    original = (runs[1] / WEIGHTS).read_bytes()
    for at in (0, 40, len(original) // 2, len(original) - 1):
        content = bytearray(original)
        content[at] ^= 1
        (runs[1] / WEIGHTS).write_bytes(content)
        with pytest.raises(UserError, match=r"weights\.safetensors: its SHA-256 is not the one"):
            reevaluate(runs, "nowhere")
    done = evaluate(*runs)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {runs[1] / WEIGHTS}: its SHA-256 is not the one in record.json")
    assert done.stderr.count("\n") == 1


def test_the_weights_of_another_run_are_found_out(runs):
    """Their checksum is in the record, as if they were its own."""
    change(runs[0], WEIGHTS, (runs[1] / WEIGHTS).read_bytes())
    done = evaluate(runs[0])
    assert done.returncode == 1
    assert "WRONG: " in done.stdout
    assert "predictions and" in done.stdout
    made = json.loads((runs[0] / "record.json").read_text())["provenance"]
    edit_record(runs[0], provenance={**made, "device": "Another Processor (1 thread)"})
    (found,) = reevaluate([runs[0]], "nowhere")
    assert found.elsewhere == f"Another Processor (1 thread), torch {torch.__version__}"
    assert "more than rounding explains" in found.problem


def test_a_local_version_that_torch_alone_names_makes_no_other_torch(runs, monkeypatch):
    """The wheels of the Python Package Index: 2.13.0 is installed and recorded, and torch says 2.13.0+cu130."""
    monkeypatch.setattr(torch, "__version__", f"{torch.__version__}.other")
    (found,) = reevaluate([runs[0]], "nowhere")
    assert found.elsewhere is None


def test_a_recorded_number_that_is_not_that_of_the_predictions_is_refused(runs):
    top5 = json.loads((runs[0] / "record.json").read_text())["top5"]
    edit_record(runs[0], top5=top5 + 1)
    with pytest.raises(UserError, match="top5"):
        reevaluate([runs[0]], "nowhere")


def test_elsewhere_the_number_of_other_predictions_is_said(runs):
    predictions = dict(np.load(runs[0] / PREDICTIONS))
    for image in (3, 7):
        while predictions["predicted"][image] == predictions["target"][image]:
            image += 1  # a wrong answer, so that no accuracy changes with it
        other = {predictions["target"][image], predictions["predicted"][image]}
        predictions["predicted"][image] = min({1, 2, 3} - other)
    np.savez_compressed(runs[0] / PREDICTIONS, **predictions)
    change(runs[0], PREDICTIONS, (runs[0] / PREDICTIONS).read_bytes())
    (found,) = reevaluate([runs[0]], "nowhere")
    assert found.problem == "2 predictions and 0 ranks of the target differ on the same processor"
    made = json.loads((runs[0] / "record.json").read_text())["provenance"]
    edit_record(runs[0], provenance={**made, "device": "Another Processor (1 thread)"})
    done = evaluate(runs[0])
    assert done.returncode == 0, done.stdout
    assert "  2 of 100 predictions differ from the record's\n" in done.stdout
    assert "recorded on Another Processor (1 thread), torch" in done.stdout


def test_weights_of_another_network_are_refused(runs):
    other = models.build("resnet14", 100).state_dict()
    change(runs[0], WEIGHTS, safetensors.torch.save(other))
    with pytest.raises(UserError, match=r"weights\.safetensors: (Missing|Unexpected) key"):
        reevaluate([runs[0]], "nowhere")


def test_what_is_missing_is_one_line(runs, tmp_path):
    official = finish_run(tmp_path / "official", make_settings("anchor_bg", model="resnet8"))
    weights = safetensors.torch.save(models.build("resnet8", 100).state_dict())
    change(official, WEIGHTS, weights)
    done = evaluate(official, "--data-root", tmp_path / "nothing")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"data.root={tmp_path / 'nothing'}: holds neither" in done.stderr
    without = finish_run(tmp_path / "without", make_settings("anchor_bg", model="resnet8"))
    with pytest.raises(UserError, match="did not keep its weights"):
        reevaluate([without], "nowhere")
    with pytest.raises(UserError, match="experiment=table1: none of its 1 runs kept its weights"):
        with_weights(tmp_path / "without", "table1")
    (runs[0] / WEIGHTS).unlink()
    with pytest.raises(UserError, match="is missing"):
        reevaluate(runs, "nowhere")
    done = evaluate()
    assert (done.returncode, done.stdout) == (2, "")
    assert "nothing to evaluate" in done.stderr


def test_other_data_are_refused(runs):
    data = json.loads((runs[0] / "record.json").read_text())["data"]
    edit_record(runs[0], data={**data, "checksum": "SYNTHETIC:other"})
    with pytest.raises(UserError, match=r"its checksum is sha256:.*is SYNTHETIC:other"):
        reevaluate([runs[0]], "nowhere")
