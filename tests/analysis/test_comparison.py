"""The verdict and its sentence."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from scipy.stats import chi2

from anchorloss.report.comparison import (
    CONTRADICTED,
    NOT_RESOLVED,
    SUPPORTED,
    compare,
    compare_measures,
    compare_published,
    resolved_winner,
    sentence,
)
from anchorloss.report.power import power, seeds

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
    assert "only before the correction" in sentence(among, "(ii)", "BCE")


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
    assert paired.seeds_needed(0.37) == seeds(0.37, [paired.difference.spread])
    assert welch.seeds_needed(0.37) == seeds(0.37, (welch.summary.std, welch.reference_summary.std))
    assert paired.seeds_needed(0.37, alpha=0.05 / 3) > paired.seeds_needed(0.37)


def test_the_sentence_says_what_was_found_and_what_it_would_take():
    (found,) = compare({"bce": BCE, "anchor_bg": NOISY})
    said = sentence(found, "(ii) background", "BCE", claimed=0.37)
    assert said.startswith("(ii) background: not resolved. Mean Top-1 is 0.31 points above BCE")
    assert f"correlation {found.difference.correlation:.2f}" in said
    least, most = found.detectable_interval()
    detectable = f"{found.detectable():.2f} points (95 % interval {least:.2f} to {most:.2f})."
    assert f"Minimum detectable difference (80 % power): {detectable}" in said
    low, high = found.seeds_interval(0.37)
    assert (
        f"need {found.seeds_needed(0.37)} seeds of each loss for 80 % power (95 % interval {low} to {high}"
        in said
    )
    assert "+0.37 lies inside the interval" in said


def test_the_sentence_for_one_seed_claims_no_spread():
    (found,) = compare({"bce": {0: 73.9}, "anchor_bg": {0: 74.4}})
    assert (found.seeds_needed(0.37), found.detectable()) == (None, None)
    said = sentence(found, "(ii)", "BCE")
    assert "with one shared seed there is no spread" in said
    assert "0.00" not in said


def test_no_power_is_computed_from_the_observed_difference():
    (found,) = compare({"bce": BCE, "anchor_bg": NOISY})
    assert "need" not in sentence(found, "(ii)", "BCE")


def test_the_interval_of_the_number_of_seeds_holds_the_number():
    for reference in (BCE, {seed + 9: value for seed, value in BCE.items()}):
        (found,) = compare({"bce": reference, "anchor_bg": NOISY})
        low, high = found.seeds_interval(0.37)
        assert 2 <= low < found.seeds_needed(0.37) < high
    (alone,) = compare({"bce": {0: 73.9}, "anchor_bg": {0: 74.4}})
    assert alone.seeds_interval(0.37) is None


def test_the_interval_of_the_detectable_difference_is_that_of_the_spread():
    """With the variance of five pairs at an end of its chi-squared interval."""
    (found,) = compare({"bce": BCE, "anchor_bg": NOISY})
    spread = found.difference.spread
    for quantile, end in zip((0.975, 0.025), found.detectable_interval(), strict=True):
        true = spread * math.sqrt((len(BCE) - 1) / chi2.ppf(quantile, len(BCE) - 1))
        assert power(end, [true], len(BCE)) == pytest.approx(0.8)
    (alone,) = compare({"bce": {0: 73.9}, "anchor_bg": {0: 74.4}})
    assert alone.detectable_interval() is None


def test_no_pair_spans_two_kinds_of_processor():
    values = {"bce": BCE, "anchor_bg": CLEAR, "anchor_both": NOISY}
    amd, intel = (dict.fromkeys(BCE, kind) for kind in ("AMD EPYC (AVX2)", "Intel(R) Xeon(R) Processor"))
    one = {"bce": amd, "anchor_bg": amd, "anchor_both": intel}
    paired, unpaired = compare(values, processors=one)
    assert (paired.difference.design, unpaired.difference.design) == ("paired", "welch")
    assert "5 against 5 runs, unpaired" in sentence(unpaired, "(iii)", "BCE")
    # The kind of each pair counts, not that all runs are of one.
    moved = {0: "AMD EPYC (AVX2)", **{seed: intel[seed] for seed in (1, 2, 3, 4)}}
    same, broken = compare(values, processors={"bce": moved, "anchor_bg": moved, "anchor_both": intel})
    assert (same.difference.design, broken.difference.design) == ("paired", "welch")
    assert same.difference == paired.difference


def measured(losses: dict[str, dict[int, float]], ece: dict[str, dict[int, float]]):
    return {"top1": losses, "top5": losses, "ece": ece}


def test_secondary_measures_are_corrected_together_and_top1_by_itself():
    losses = {"bce": BCE, "anchor_target": NOISY, "anchor_bg": CLEAR}
    found = compare_measures(measured(losses, losses))
    assert {c.comparisons for c in found["top1"]} == {2}
    assert {c.comparisons for c in (*found["top5"], *found["ece"])} == {4}
    assert found["top1"][1].adjusted_p == pytest.approx(2 * found["top1"][1].difference.p_value)
    assert found["top5"][1].adjusted_p == pytest.approx(4 * found["top5"][1].difference.p_value)


def test_another_loss_changes_no_correction_of_the_papers():
    losses = {"bce": BCE, "anchor_bg": CLEAR}
    alone = compare_measures(measured(losses, losses))
    beside = compare_measures(measured({**losses, "softmax": NOISY}, {**losses, "softmax": NOISY}))
    for key, comparisons in alone.items():
        assert beside[key][:1] == comparisons
        assert beside[key][1].loss == "softmax"


def test_a_lower_calibration_error_is_better():
    lower = {seed: value - 5 for seed, value in CLEAR.items()}
    found = compare_measures(measured({"bce": BCE, "anchor_bg": lower}, {"bce": BCE, "anchor_bg": lower}))
    assert (found["top1"][0].verdict, found["ece"][0].verdict) == (CONTRADICTED, SUPPORTED)
    assert "Mean expected calibration error is" in sentence(found["ece"][0], "(ii)", "BCE")


def test_without_the_reference_nothing_is_compared():
    losses = {"anchor_bg": CLEAR}
    assert set(compare_measures(measured(losses, losses)).values()) == {()}


@pytest.mark.parametrize(
    ("losses", "winner"),
    [
        ({"bce": BCE, "anchor_bg": CLEAR}, "anchor_bg"),
        ({"bce": BCE, "anchor_bg": NOISY}, None),
        ({"bce": BCE, "anchor_bg": shifted(-0.40, -0.35, -0.42, -0.30, -0.38)}, "bce"),
        ({"bce": BCE, "anchor_bg": CLEAR, "anchor_both": shifted(0.39, 0.36, 0.40, 0.31, 0.37)}, None),
        ({"bce": BCE, "anchor_bg": {0: 90.0}}, None),
        ({"anchor_bg": CLEAR}, None),
        ({}, None),
    ],
)
def test_a_winner_is_better_than_every_other_loss(losses, winner):
    assert resolved_winner(losses) == winner


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
