"""Weights that a run keeps: the record's own, nothing but tensors, and no part of what the run is."""

from __future__ import annotations

import pickle

import pytest
import safetensors.torch
import torch

import models
from anchorloss.data import augmentation
from anchorloss.errors import UserError
from anchorloss.runs import weights
from anchorloss.runs.differences import same_result
from anchorloss.runs.files import sha256
from anchorloss.runs.folder import WEIGHTS, read_predictions, read_record, run_folder, verify_files
from anchorloss.runs.merge import copy_run, plan_merge
from tests.in_process import data_of, finish, settings, start


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """One run that kept its weights: settings, data, record, folder."""
    results = tmp_path_factory.mktemp("kept")
    (run,) = settings("loss=anchor_bg", "seeds=[2]")
    data = data_of(run)
    record = finish(start(run, data, results, keep_weights=True))
    return run, data, record, run_folder(results, run.experiment, run.run)


def test_the_weights_give_the_records_predictions(kept):
    run, data, record, folder = kept
    assert record.files[WEIGHTS] == sha256((folder / WEIGHTS).read_bytes())
    verify_files(folder, record)
    network = models.build("resnet8", 100, run.model.shortcut, run.model.prior_bias)
    network.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))  # as an adopter would
    mean, std = data.dataset.mean, data.dataset.std
    images = augmentation.normalize(data.evaluation_images, mean, std).contiguous()
    with torch.no_grad():
        predicted = network.eval()(images).argmax(1).numpy()
    recorded = read_predictions(folder).predicted
    assert (predicted == recorded).mean() >= 0.99  # another memory layout may round differently
    floating = [value for value in network.state_dict().values() if value.is_floating_point()]
    assert {value.dtype for value in floating} == {torch.float32}


def test_keeping_weights_is_no_part_of_the_run_and_merging_brings_them_along(kept, tmp_path):
    """A run that does not keep them ends without those that a killed process has left."""
    run, data, record, folder = kept
    bare = run_folder(tmp_path, run.experiment, run.run)
    bare.mkdir(parents=True)
    (bare / WEIGHTS).write_bytes(b"of a process that was killed before it wrote the record")
    without = finish(start(run, data, tmp_path))
    assert WEIGHTS not in without.files
    assert not (bare / WEIGHTS).exists()
    assert same_result(without, record)
    assert same_result(record, without)

    (pair,), *_ = plan_merge([tmp_path, folder.parents[2]], tmp_path / "into")
    copy_run(*pair)
    merged = run_folder(tmp_path / "into", run.experiment, run.run)
    assert (merged / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()
    assert read_record(merged) == record
    (merged / WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"weights\.safetensors: its SHA-256 is not the one"):
        plan_merge([tmp_path / "into"], tmp_path / "elsewhere")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nothing",
        (2**63).to_bytes(8, "little") + b"{}",
        (10**9).to_bytes(8, "little") + b"{}",
        pickle.dumps({"conv.weight": [0.0]}),
        safetensors.torch.save({"conv.weight": torch.zeros(2)})[:-3],
    ],
    ids=["empty", "text", "longest header", "long header", "pickle", "cut"],
)
def test_what_is_no_safetensors_file_is_one_line(content, tmp_path):
    with pytest.raises(
        UserError, match=r"^\S*w\.safetensors: not a safetensors file .*; restore it from a copy$"
    ):
        weights.load_into(models.build("resnet8", 100, "A", True), content, tmp_path / "w.safetensors")


def test_the_weights_of_another_network_are_refused(kept, tmp_path):
    content = (kept[3] / WEIGHTS).read_bytes()
    for network in (
        models.build("resnet8", 100, "B", True),
        models.build("resnet8", 10, "A", True),
        models.build("resnet20", 100, "A", True),
    ):
        with pytest.raises(UserError, match=r"w: .*(key|size mismatch).*; name the network that"):
            weights.load_into(network, content, tmp_path / "w")
