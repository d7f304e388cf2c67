"""bf16 against fp32 from records."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import scipy.stats

from anchorloss.errors import UserError
from anchorloss.report.bf16 import compare_precisions
from tests.run_folders import finish_run, make_settings

FP32 = [40.0, 41.0, 42.5, 40.5, 41.5]
BF16 = [40.2, 40.8, 42.9, 40.4, 41.9]


def finish_both(results, **settings):
    for precision, scores in (("fp32", FP32), ("bf16", BF16)):
        for seed, top1 in enumerate(scores):
            run = make_settings("bce", seed, experiment="precision", data="synthetic", **settings)
            finish_run(results, replace(run, precision=precision), top1=top1)


def test_the_difference_is_paired_by_seed(tmp_path):
    finish_both(tmp_path)
    text = compare_precisions(tmp_path, "precision")
    differences = [ours - reference for ours, reference in zip(BF16, FP32, strict=True)]
    test = scipy.stats.ttest_1samp(differences, 0)
    interval = test.confidence_interval(0.95)
    assert "SYNTHETIC" in text
    assert f"95 % interval {interval.low:+.2f} to {interval.high:+.2f}; 5 paired seeds" in text
    assert f"p = {test.pvalue:.3f}" in text
    assert re.search(r"\| bce +\| 41\.10 ± 0\.96 \(n = 5\) \| 41\.24 ± ", text)


def test_runs_that_differ_in_more_are_refused(tmp_path):
    finish_both(tmp_path)
    other = make_settings("bce", 9, experiment="precision", data="synthetic", momentum=0.5)
    finish_run(tmp_path, replace(other, precision="fp16"), top1=1.0)
    compare_precisions(tmp_path, "precision")
    finish_run(tmp_path, replace(other, precision="bf16"), top1=1.0)
    with pytest.raises(UserError, match=r"optim\.momentum"):
        compare_precisions(tmp_path, "precision")


@pytest.mark.parametrize(
    ("loss", "key", "values"),
    [("bce", "optim.momentum", (0.9, 0.5)), ("anchor_bg", "loss.gamma", (0.5, 1.0))],
)
def test_the_precisions_must_have_one_protocol(tmp_path, loss, key, values):
    """That of one loss includes its arguments."""
    for precision, value in zip(("fp32", "bf16"), values, strict=True):
        run = make_settings(loss, 0, experiment="precision", **{key.partition(".")[2]: value})
        finish_run(tmp_path, replace(run, precision=precision))
    with pytest.raises(UserError, match=re.escape(key)):
        compare_precisions(tmp_path, "precision")


def test_precisions_without_a_common_loss_are_refused(tmp_path):
    for precision, loss in (("fp32", "bce"), ("bf16", "anchor_bg")):
        run = make_settings(loss, 0, experiment="precision")
        finish_run(tmp_path, replace(run, precision=precision))
    with pytest.raises(UserError, match="no loss has finished runs in both"):
        compare_precisions(tmp_path, "precision")


def test_a_precision_without_runs_is_named(tmp_path):
    finish_run(tmp_path, make_settings("bce", 0, experiment="precision"))
    with pytest.raises(UserError, match="no finished run in bf16"):
        compare_precisions(tmp_path, "precision")


def test_the_runs_of_a_table_count_beside_those_made_for_the_comparison(tmp_path):
    finish_both(tmp_path)
    alone = compare_precisions(tmp_path, "precision")
    for seed, top1 in enumerate(BF16):
        run = make_settings("bce", seed, experiment="table", data="synthetic")
        finish_run(tmp_path / "two", replace(run, precision="bf16"), top1=top1)
        other = make_settings("anchor_bg", seed, experiment="table", data="synthetic")
        finish_run(tmp_path / "two", replace(other, precision="bf16"), top1=1.0)
        run = make_settings("bce", seed, experiment="precision", data="synthetic")
        finish_run(tmp_path / "two", replace(run, precision="fp32"), top1=FP32[seed])
    beside = compare_precisions(tmp_path / "two", "precision", beside="table")
    assert beside.splitlines()[2:] == alone.splitlines()[2:]
