"""An experiment without BCE: table, statistics, report and curves against a loss that was named."""

from __future__ import annotations

import csv
import re

import pytest

from tests.commands import Done, call
from tests.fake_runs import make_runs


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    make_runs(folder, "own", losses=("softmax", "anchor_bg"), seeds=range(3), epochs=6, images=500)
    return folder


def script(name: str, results, *arguments: str) -> Done:
    return call(name, "--experiment=own", "--results-dir", results, *arguments)


def test_table_statistics_report_and_curves_compare_with_it(results):
    for name in ("make_table1.py", "report.py", "curves.py"):
        done = script(name, results, "--reference", "softmax")
        assert done.returncode == 0, done.stderr
    with (results / "own" / "table1.csv").open() as file:
        rows = {row["loss"]: row for row in csv.DictReader(file)}
    difference = float(rows["anchor_bg"]["top1_mean"]) - float(rows["softmax"]["top1_mean"])
    assert float(rows["anchor_bg"]["top1_minus_softmax"]) == pytest.approx(difference)
    assert rows["softmax"]["top1_minus_softmax"] == ""
    table = (results / "own" / "table1.md").read_text()
    assert "Top-1 - softmax" in table
    assert f"{difference:+.2f}" in table
    statistics = (results / "own" / "statistics.md").read_text()
    assert "better than softmax" in statistics
    assert f"{abs(difference):.2f} points" in statistics
    report = (results / "own" / "report.html").read_text()
    assert "Better than softmax?" in report
    assert "Better than BCE" not in report
    curves = (results / "own" / "curves.md").read_text()
    assert "Top-1 - softmax, same seed" in curves
    last = [
        line.split("|") for line in curves.splitlines() if re.match(r"\| anchor_bg seed \d \|\s*6 ", line)
    ]
    assert len(last) == 3
    assert sum(float(line[-2]) for line in last) / 3 == pytest.approx(difference, abs=0.01)


@pytest.mark.parametrize("name", ["make_table1.py", "report.py", "curves.py"])
def test_a_reference_without_a_run_is_one_line(name, results):
    done = script(name, results, "--reference", "anchor_both")
    assert done.returncode == 2
    assert done.stderr == "error: --reference anchor_both: has no run; use one of anchor_bg, softmax\n"
