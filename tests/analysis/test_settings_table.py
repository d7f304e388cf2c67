"""A sweep over other settings than loss and seed, as a table."""

from __future__ import annotations

import csv
import io
import json
import statistics

import pytest

from anchorloss.errors import UserError
from anchorloss.report.settings_table import build, make_settings_table, to_csv, to_markdown
from anchorloss.runs.folder import read_ended
from tests.commands import call
from tests.run_folders import edit_record, finish_run, make_settings

TOP1 = {("bce", 0.1): (60.0, 61.0), ("bce", 1.0): (50.0, 52.0), ("anchor_bg", 0.1): (62.0, 63.5)}


@pytest.fixture
def results(tmp_path):
    for (loss, lr), values in TOP1.items():
        for seed, top1 in enumerate(values):
            finish_run(tmp_path, make_settings(loss, seed, experiment="rates", epochs=3, lr=lr), top1=top1)
    finish_run(tmp_path, make_settings("anchor_bg", 0, experiment="rates", epochs=3, lr=1.0), failed=True)
    return tmp_path


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_row_for_each_combination(results):
    table = make_settings_table(results, "rates", "bce")
    found = rows((results / "rates" / "settings.csv").read_text())
    assert [(row["loss"], row["optim.lr"], row["n"], row["failed"]) for row in found] == [
        ("bce", "0.1", "2", "0"),
        ("bce", "1.0", "2", "0"),
        ("anchor_bg", "0.1", "2", "0"),
        ("anchor_bg", "1.0", "0", "1"),
    ]
    for row in found[:3]:
        values = TOP1[row["loss"], float(row["optim.lr"])]
        assert float(row["top1_mean"]) == pytest.approx(statistics.mean(values))
        assert float(row["top1_std"]) == pytest.approx(statistics.stdev(values))
    assert [row["top1_minus_bce"] for row in found] == ["", "", "2.25", ""]
    text = (results / "rates" / "settings.md").read_text()
    assert text == to_markdown(table)
    assert "62.75 ± 1.06" in text
    assert "+2.25" in text
    assert "0 (1 failed)" in text


def test_settings_of_the_loss_are_swept_too(tmp_path):
    finish_run(tmp_path, make_settings("bce", 0, epochs=3))
    for gamma in (0.5, 10.0, 2.0):
        finish_run(tmp_path, make_settings("anchor_bg", 0, epochs=3, gamma=gamma), top1=70 + gamma)
    records = [record for _, record in read_ended(tmp_path, "table1")]
    table = build(records, "table1", "bce")
    assert table.keys == ("loss.gamma",)
    assert [row.values[0] for row in table.rows] == ["0.5", "0.5", "2.0", "10.0"], "numbers by size"
    assert [row["top1_minus_bce"] for row in rows(to_csv(table))[1:]] == ["-3.5", "-2.0", "6.0"]


def test_a_reference_without_runs_is_named(results):
    with pytest.raises(UserError, match="--reference softmax: has no run; use one of bce, anchor_bg"):
        make_settings_table(results, "rates", "softmax")


def test_runs_on_different_images_are_refused(results):
    folder = next(results.glob("runs/rates/bce-*-seed0-*"))
    data = json.loads((folder / "record.json").read_text())["data"]
    edit_record(folder, data={**data, "checksum": "md5:0"})
    with pytest.raises(UserError, match="saw different images"):
        make_settings_table(results, "rates")


def test_the_script_makes_it_in_place_of_a_refusal(results):
    arguments = ["--experiment", "rates", "--results-dir", str(results), "--reference", "anchor_bg"]
    done = call("make_table1.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert "optim.lr" in done.stdout
    assert "-2.25" in done.stdout
    assert not (results / "rates" / "table1.md").exists()
