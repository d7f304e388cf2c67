"""Every epoch of an experiment's runs, from records."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from anchorloss.errors import UserError
from anchorloss.report.curves import draw, read_curves, to_markdown
from anchorloss.runs.folder import read_history
from tests.run_folders import finish_run, interrupt_run, make_settings


def test_each_epoch_of_each_run_is_a_row_and_drawn(tmp_path):
    short = {"experiment": "short", "epochs": 3}
    folder = finish_run(tmp_path, make_settings("bce", 0, **short))
    finish_run(tmp_path, make_settings("anchor_bg", 0, **short), failed=True)
    interrupt_run(tmp_path, make_settings("anchor_bg", 1, **short))
    curves = read_curves(tmp_path, "short")
    text = re.sub(" +", " ", to_markdown(curves))
    for row in read_history(folder).itertuples():
        assert f"| bce seed 0 | {row.epoch} | {row.learning_rate:.4g} | {row.train_loss:.2f} |" in text
        assert f"| {row.test_loss:.2f} | {row.top1:.2f} | {row.top5:.2f} |" in text
    assert text.count("| anchor_bg seed 0 |") == 2
    assert "failed: anchor_bg seed 0: non-finite loss in epoch 3" in text
    assert "anchor_bg seed 1" not in text
    drawn = draw(curves)
    assert drawn == draw(curves)
    ElementTree.fromstring(drawn)
    for said in (text, drawn.decode()):
        assert "NOT THE FULL PROTOCOL (resnet110, 3 epochs)" in said


def test_runs_that_would_share_a_name_are_refused(tmp_path):
    for rate in (0.1, 0.2):
        finish_run(tmp_path, make_settings("bce", 0, experiment="rates", epochs=3, lr=rate))
    with pytest.raises(UserError, match=r"optim\.lr"):
        read_curves(tmp_path, "rates")


def test_a_history_that_was_edited_is_refused(tmp_path):
    folder = finish_run(tmp_path, make_settings("bce", 0, experiment="short", epochs=3))
    (folder / "history.csv").write_text((folder / "history.csv").read_text().replace("0.1", "0.2"))
    with pytest.raises(UserError, match=r"history\.csv"):
        read_curves(tmp_path, "short")


def test_no_run_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no run has ended"):
        read_curves(tmp_path, "nothing")
