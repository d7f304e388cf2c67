"""Runs and histories as DataFrames."""

from __future__ import annotations

import json

import pytest

from anchorloss.analysis.frame import histories, runs
from anchorloss.errors import UserError
from tests.run_folders import finish_run, make_settings, plan_run


@pytest.fixture
def results(tmp_path):
    for seed in (0, 1):
        finish_run(tmp_path, make_settings("bce", seed, epochs=3), top1=70.0 + seed)
        finish_run(tmp_path, make_settings("anchor_bg", seed, epochs=3, gamma=1.0), top1=72.0 + seed)
    finish_run(tmp_path, make_settings("anchor_bg", 2, epochs=3, gamma=1.0), failed=True)
    plan_run(tmp_path, make_settings("bce", 2, epochs=3))
    return tmp_path


def test_a_row_for_each_run_with_its_record_and_settings(results):
    frame = runs("table1", results)
    assert len(frame) == 6
    assert frame["state"].value_counts().to_dict() == {"finished": 4, "failed": 1, "waiting": 1}
    means = frame.groupby("loss")["top1"].mean()
    assert means.to_dict() == {"bce": 70.5, "anchor_bg": 72.5}
    assert frame[frame["loss"] == "anchor_bg"]["loss.gamma"].tolist() == [1.0] * 3
    assert frame["optim.epochs"].tolist() == [3] * 6
    assert frame["optim.decay_at"].iloc[0] == [0.8, 0.9]
    failed = frame[frame["state"] == "failed"].iloc[0]
    assert failed["failure.step"] == 17
    for name in frame.index[frame["state"] == "finished"]:
        record = json.loads((results / "runs" / "table1" / name / "record.json").read_text())
        assert frame.loc[name, "best.top1"] == record["best"]["top1"]
        assert frame.loc[name, "provenance.device"] == record["provenance"]["device"]


def test_a_row_for_each_epoch(results):
    frame = histories("table1", results)
    assert len(frame) == 4 * 3 + 2
    assert sorted(frame.groupby("run")["epoch"].apply(list)) == [[1, 2], *[[1, 2, 3]] * 4]
    assert frame.groupby("loss")["background_factor_q50"].count().to_dict() == {"anchor_bg": 8, "bce": 0}
    assert {"learning_rate", "train_loss", "top1", "seed", "model"} <= set(frame.columns)


def test_what_is_not_there_or_damaged_is_named(results):
    for read in (runs, histories):
        with pytest.raises(UserError, match="experiment=nothing: no runs in"):
            read("nothing", results)
    (folder,) = results.glob("runs/table1/bce-*-seed0-*")
    (folder / "history.csv").write_text("epoch\n1\n")
    with pytest.raises(UserError, match=r"history\.csv"):
        histories("table1", results)
