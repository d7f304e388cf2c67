"""What counts as the full protocol, and what an experiment plans."""

from __future__ import annotations

import pytest

from anchorloss.analysis.protocol import FULL, FULL_PROTOCOL, departures, planned
from anchorloss.analysis.table import build_table, stamps
from anchorloss.analysis.table_text import make_table, to_markdown
from anchorloss.config.parsing import parse
from anchorloss.report.page import write_report
from anchorloss.runs.store import read_runs
from tests.in_process import composed
from tests.run_folders import finish_run, make_record, make_settings


def test_the_full_protocol_is_that_of_its_config():
    ((run,), _) = parse(composed("experiment=table1", "seeds=[0]", "loss=anchor_bg"))
    identity = run.identity()
    del identity["optim"]["evaluate_every"]
    assert {key: identity[key] for key in FULL_PROTOCOL} == FULL_PROTOCOL
    assert stamps([make_record(run)]) == ()


@pytest.mark.parametrize(
    "changed", [{"lr": 0.5}, {"softmax_warmup_epochs": 5}, {"gamma": 1.0}, {"nesterov": True}]
)
def test_any_other_setting_keeps_the_papers_figures_away(tmp_path, changed):
    for loss in ("bce", "anchor_bg"):
        finish_run(tmp_path, make_settings(loss, 0, **changed))
    table = build_table(read_runs(tmp_path, FULL), FULL)
    ((key, value),) = changed.items()
    assert any(f"{key} {str(value).lower()}" in stamp for stamp in table.stamps), table.stamps
    assert "73.88 ± 0.22" not in to_markdown(table)


def test_fp32_and_rarer_evaluation_are_the_full_protocol():
    assert departures(make_record(make_settings("anchor_bg", 0, evaluate_every=10))) == []


def test_what_an_experiment_plans_and_nobody_began_is_in_the_table(tmp_path):
    finish_run(tmp_path, make_settings("bce", 0))
    assert "missing: anchor_both" in write_report(tmp_path, FULL).read_text()
    text = to_markdown(make_table(tmp_path, FULL))
    for said in ("| BCE             | 1 of 5 |", "| (iii) both      | 0 of 5 | not run |"):
        assert said.replace(" ", "") in text.replace(" ", "")
    assert "missing: anchor_both" in text
    assert "missing: bce seed 4, which the experiment plans" in text


def test_plans_are_read_where_there_are_some():
    plan = planned("table1_small")
    assert plan is not None
    assert plan.losses == ("bce", "anchor_target", "anchor_bg", "anchor_both", "softmax")
    assert plan.seeds == (0, 1, 2, 3, 4)
    assert planned("scratch") is None
    assert planned("nothing_of_that_name") is None
