"""The list of an experiment's runs, from records."""

from __future__ import annotations

import pytest

from anchorloss.errors import UserError
from anchorloss.report.listing import list_runs
from tests.run_folders import finish_run, make_settings


def test_each_run_is_a_row_with_the_settings_that_differ(tmp_path):
    rates = {"experiment": "rates", "epochs": 3}
    finish_run(tmp_path, make_settings("bce", 0, lr=0.1, **rates), top1=30.0, top5=60.0)
    finish_run(tmp_path, make_settings("anchor_bg", 0, lr=0.1, **rates), top1=31.0, top5=61.0)
    finish_run(tmp_path, make_settings("anchor_bg", 0, lr=0.2, gamma=1.0, **rates), failed=True)
    lines = list_runs(tmp_path, "rates").splitlines()
    header, *rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in lines
        if line.startswith("| ") and "---" not in line
    ]
    assert header[:6] == ["loss", "loss.gamma", "optim.lr", "seed", "Top-1", "Top-5"]
    assert sorted(row[:6] for row in rows) == [
        ["anchor_bg", "0.5", "0.1", "0", "31.00", "61.00"],
        ["anchor_bg", "1.0", "0.2", "0", "failed", "failed"],
        ["bce", "0.5", "0.1", "0", "30.00", "60.00"],
    ]
    assert all(row[-1] == "0123456789" for row in rows)


def test_no_run_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no run has ended"):
        list_runs(tmp_path, "nothing")
