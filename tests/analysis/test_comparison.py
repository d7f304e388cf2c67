"""The verdict and its sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from anchorloss.analysis.comparison import (
    CONTRADICTED,
    NOT_RESOLVED,
    SUPPORTED,
    compare,
    compare_published,
    sentence,
)
from anchorloss.analysis.power import paired_seeds, welch_seeds

BCE = {0: 73.60, 1: 73.95, 2: 73.80, 3: 74.10, 4: 73.95}
PUBLISHED = {
    "bce": (73.88, 0.22),
    "anchor_target": (74.06, 0.53),
    "anchor_bg": (74.25, 0.34),
    "anchor_both": (73.90, 0.40),
}


def shifted(*deltas: float) -> dict[int, float]:
    return {seed: BCE[seed] + delta for seed, delta in enumerate(deltas)}


CLEAR = shifted(0.40, 0.35, 0.42, 0.30, 0.38)
NOISY = shifted(0.60, -0.20, 0.75, 0.10, 0.30)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        (CLEAR, SUPPORTED),
        (NOISY, NOT_RESOLVED),
        (shifted(-0.40, -0.35, -0.42, -0.30, -0.38), CONTRADICTED),
        ({0: 90.0}, NOT_RESOLVED),
        ({}, NOT_RESOLVED),
    ],
)
def test_verdict(values, verdict):
    (found,) = compare({"bce": BCE, "anchor_bg": values})
    assert found.verdict == verdict


def test_the_verdict_rests_on_the_corrected_p_value():
    """A p-value between 0.05 / 3 and 0.05 passes alone and fails among three comparisons."""
    borderline = shifted(0.50, 0.05, 0.60, 0.25, 0.30)
    (alone,) = compare({"bce": BCE, "anchor_bg": borderline})
    among = compare({"bce": BCE, "anchor_bg": borderline, "anchor_target": {}, "anchor_both": {}})[0]
    assert 0.05 / 3 < alone.difference.p_value < 0.05
    assert (alone.verdict, among.verdict) == (SUPPORTED, NOT_RESOLVED)
    assert among.adjusted_p == pytest.approx(3 * alone.difference.p_value)
    assert "Alone it would pass" in sentence(among, "(ii)", "BCE")


@pytest.mark.parametrize("n", [3, 5])
def test_published_figures_resolve_nothing_with_few_runs(n):
    found = compare_published(PUBLISHED, n)
    assert [comparison.loss for comparison in found] == ["anchor_target", "anchor_bg", "anchor_both"]
    assert {comparison.verdict for comparison in found} == {NOT_RESOLVED}


def test_published_best_row_passes_with_ten_runs():
    best = compare_published(PUBLISHED, 10)[1]
    assert best.verdict == SUPPORTED
    assert best.adjusted_p == pytest.approx(3 * best.difference.p_value)


def test_published_figures_need_an_assumed_number_of_runs_with_a_spread():
    with pytest.raises(ValueError, match="n=1"):
        compare_published(PUBLISHED, 1)


def test_seeds_needed_follow_the_design():
    (paired,) = compare({"bce": BCE, "anchor_bg": NOISY})
    (welch,) = compare({"bce": BCE, "anchor_bg": {seed + 9: value for seed, value in NOISY.items()}})
    assert paired.seeds_needed(0.37) == paired_seeds(0.37, paired.difference.spread)
    assert welch.seeds_needed(0.37) == welch_seeds(0.37, welch.summary.std, welch.reference_summary.std)
    assert paired.seeds_needed(0.37, alpha=0.05 / 3) > paired.seeds_needed(0.37)


def test_the_sentence_says_what_was_found_and_what_it_would_take():
    (found,) = compare({"bce": BCE, "anchor_bg": NOISY})
    said = sentence(found, "(ii) background", "BCE", claimed=0.37)
    assert said.startswith("(ii) background: not resolved. Mean Top-1 is 0.31 points above BCE")
    assert f"would take {found.seeds_needed(0.37)} seeds of each loss" in said
    assert "+0.37 lies inside the interval" in said


def test_the_sentence_for_one_seed_claims_no_spread():
    (found,) = compare({"bce": {0: 73.9}, "anchor_bg": {0: 74.4}})
    assert (found.seeds_needed(0.37), found.detectable()) == (None, None)
    said = sentence(found, "(ii)", "BCE")
    assert "n = 1 and 1 there is no spread" in said
    assert "0.00" not in said


def test_the_sentence_for_a_loss_without_runs():
    (found,) = compare({"bce": BCE, "anchor_bg": {}})
    assert sentence(found, "(ii)", "BCE") == (
        "(ii): not resolved. There is no finished run to compare with BCE."
    )


def test_the_example_in_the_docs_runs(capsys):
    page = (Path(__file__).resolve().parents[2] / "docs" / "statistics.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(compile(example, "docs/statistics.md", "exec"), {})
    assert capsys.readouterr().out.startswith("anchor_bg: not resolved. Mean Top-1 is 0.47 points above BCE")
