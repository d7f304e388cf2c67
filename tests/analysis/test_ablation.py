"""One loss with other arguments against itself, from records."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import scipy.stats

from anchorloss.errors import UserError
from anchorloss.report.ablation import BASE, draw, read_ablation, to_markdown
from tests.run_folders import finish_run, make_settings

TABLE = [40.0, 41.0, 42.5, 40.5]
STEEP = [40.9, 41.8, 43.6]


def finish_both(results) -> None:
    for seed, top1 in enumerate(TABLE):
        finish_run(results, make_settings("anchor_bg", seed, experiment="table"), top1=top1)
        finish_run(results, make_settings("bce", seed, experiment="table"), top1=1.0)
    for seed, top1 in enumerate(STEEP):
        finish_run(results, make_settings("anchor_bg", seed, experiment="ablation", gamma=2.0), top1=top1)


def test_each_arm_is_compared_with_the_table_at_the_same_seeds(tmp_path):
    finish_both(tmp_path)
    ablation = read_ablation(tmp_path, "ablation", "table")
    assert ablation.arms == {BASE: dict(enumerate(TABLE[:3])), "gamma 2.0": dict(enumerate(STEEP))}
    test = scipy.stats.ttest_rel(STEEP, TABLE[:3])
    interval = test.confidence_interval(0.95)
    text = to_markdown(ablation)
    assert f"95 % interval {interval.low:+.2f} to {interval.high:+.2f}; 3 paired seeds" in text
    assert re.search(r"\| gamma 2\.0 +\| +3 \| 42\.10 ± ", text)


def test_the_figure_names_every_arm_and_is_stamped(tmp_path):
    finish_both(tmp_path)
    ablation = read_ablation(tmp_path, "ablation", "table")
    drawn = draw(ablation)
    assert drawn == draw(ablation)
    comments = drawn.decode()
    ElementTree.fromstring(drawn)
    for said in (BASE, "gamma 2.0", "not the paper"):
        assert said in comments


def test_runs_of_another_protocol_are_refused(tmp_path):
    finish_both(tmp_path)
    other = make_settings("anchor_bg", 0, experiment="ablation", gamma=1.0, momentum=0.5)
    finish_run(tmp_path, other, top1=50.0)
    with pytest.raises(UserError, match=r"optim\.momentum"):
        read_ablation(tmp_path, "ablation", "table")


def test_another_loss_is_refused(tmp_path):
    finish_both(tmp_path)
    finish_run(tmp_path, make_settings("bce", 0, experiment="ablation"), top1=50.0)
    with pytest.raises(UserError, match="loss"):
        read_ablation(tmp_path, "ablation", "table")


@pytest.mark.parametrize(("experiment", "beside"), [("nothing", "table"), ("ablation", "nothing")])
def test_an_experiment_without_runs_is_named(tmp_path, experiment, beside):
    finish_both(tmp_path)
    with pytest.raises(UserError, match="experiment=nothing"):
        read_ablation(tmp_path, experiment, beside)


def test_a_change_of_two_arguments_names_both(tmp_path):
    finish_both(tmp_path)
    run = make_settings("anchor_bg", 0, experiment="ablation", gamma=1.0)
    changed = replace(run, loss=replace(run.loss, arguments={**run.loss.arguments, "slack": 0.05}))
    finish_run(tmp_path, changed, top1=41.5)
    assert "gamma 1.0, slack 0.05" in read_ablation(tmp_path, "ablation", "table").arms
