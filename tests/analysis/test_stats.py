"""Statistics against published worked examples, other software, independent formulas and simulation."""

from __future__ import annotations

import itertools
import math
import statistics as standard_library

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy

from anchorloss.analysis import stats
from anchorloss.analysis.paper import LOSSES
from anchorloss.analysis.stats import compare, corrected, detectable, holm, power, seeds_needed

# Student, "The probable error of a mean", Biometrika 6 (1908): hours of sleep gained with two drugs.
SLEEP_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SLEEP_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
BCE = np.array([73.60, 73.95, 73.80, 74.10, 73.95])
CLEAR, NOISY = (
    BCE + np.array(one) for one in ([0.40, 0.35, 0.42, 0.30, 0.38], [0.60, -0.20, 0.75, 0.10, 0.30])
)


def frame(processors=(), **arms) -> pd.DataFrame:
    """Finished runs: arm -> Top-1 by seed, as a list from seed 0 or a dict."""
    rows = [
        {"loss": arm, "seed": seed, "top1": value, "state": "finished", "experiment": "table1_resnet20"}
        for arm, values in arms.items()
        for seed, value in (values.items() if isinstance(values, dict) else enumerate(values))
    ]
    found = pd.DataFrame(rows).assign(processor="one kind")
    for arm, seed in processors:
        found.loc[(found["loss"] == arm) & (found["seed"] == seed), "processor"] = "another"
    return found


def one(first, second, **options):
    """The comparison of two arms."""
    return compare(frame(first=first, second=second, **options), "top1", "second").loc["first"]


def apart(values) -> dict[int, float]:
    """The same values under seeds that match nothing."""
    return {seed + 1000: value for seed, value in enumerate(values)}


def test_pairs_are_students_own_example():
    # R's t.test on the same data: t = 4.0621, df = 9, p = 0.002833, interval 0.7001142 to 2.4598858.
    found = one(SLEEP_2, SLEEP_1)
    assert (found["paired"], found["n"], found["df"]) == (True, 10, 9)
    assert list(found[["difference", "t", "p"]]) == pytest.approx([1.58, 4.0621, 0.002833], rel=2e-4)
    assert list(found[["low", "high"]]) == pytest.approx([0.7001142, 2.4598858], abs=1e-6)
    assert found["correlation"] == pytest.approx(scipy.pearsonr(SLEEP_1, SLEEP_2).statistic)


@pytest.mark.parametrize("options", [{}, {"processors": [("first", 3)]}])
def test_without_pairs_it_is_welchs_test(options):
    # R's t.test without pairing: t = 1.8608, df = 17.776, p = 0.07939, interval -0.205 to 3.365.
    found = one(SLEEP_2 if options else apart(SLEEP_2), SLEEP_1, **options)
    assert not found["paired"]
    assert list(found[["t", "df", "p"]]) == pytest.approx([1.8608, 17.776, 0.07939], rel=1e-4)
    assert list(found[["low", "high"]]) == pytest.approx([-0.2054832, 3.3654832], abs=1e-6)
    assert found["spreads"] == pytest.approx([standard_library.stdev(each) for each in (SLEEP_2, SLEEP_1)])
    assert math.isnan(found["correlation"])


@pytest.mark.parametrize(
    ("seeds", "reference", "paired", "n"),
    [
        ({0, 1, 2}, {0, 1, 2}, True, (3, 3)),
        ({0, 1, 3}, {0, 1, 2}, True, (2, 2)),
        ({0}, {0, 1, 2}, True, (1, 1)),
        ({5, 6, 7}, {0, 1}, False, (3, 2)),
    ],
)
def test_only_the_seeds_that_both_have_are_compared(seeds, reference, paired, n):
    first, second = {seed: 71.0 + seed**2 for seed in seeds}, {seed: 70.0 + seed for seed in reference}
    shared = sorted(seeds & reference)
    means = [np.mean([side[seed] for seed in (shared or side)]) for side in (first, second)]
    found = one(first, second)
    assert (found["paired"], found["n"], found["n_reference"]) == (paired, *n)
    assert found["difference"] == pytest.approx(means[0] - means[1])


def test_pairs_on_two_kinds_of_processor_are_none():
    """The kind of each pair counts, not that all runs are of one."""
    both = frame(bce=BCE, anchor_bg=CLEAR, anchor_both=NOISY, processors=[("bce", 0), ("anchor_bg", 0)])
    assert compare(both, "top1", "bce")["paired"].tolist() == [True, False]


@pytest.mark.parametrize(("first", "second"), [([74.0], [73.5]), ([71.4, 72.2, 70.8], [71.3, 72.1, 70.7])])
def test_without_a_spread_there_is_no_interval_and_no_test(first, second):
    found = one(first, second)
    assert found["difference"] == pytest.approx(np.mean(first) - np.mean(second))
    assert found[["low", "high", "t", "p"]].isna().all()


def test_an_arm_without_a_run_stays_and_without_the_reference_there_is_nothing():
    found = compare(frame(bce=BCE), "top1", "bce", names=LOSSES)
    assert found["n"].tolist() == [0, 0, 0]
    assert found["difference"].isna().all()
    assert compare(frame(anchor_bg=BCE), "top1", "bce").empty


@pytest.mark.parametrize("paired", [True, False])
def test_the_interval_covers_the_truth_95_times_in_100(paired):
    """600 draws of five seeds; three binomial standard errors are 0.027. Welch may be a little wide."""
    generator, covered = np.random.default_rng(20191027), 0
    for _ in range(600):
        effect = generator.normal(0, 0.3, 5)
        base = 73.88 + effect + generator.normal(0, 0.22, 5)
        own = 73.88 + 0.37 + effect * paired + generator.normal(0, 0.34, 5)
        found = stats._test(own, base, paired)
        covered += found["low"] <= 0.37 <= found["high"]
    assert 0.95 - 0.027 <= covered / 600 <= 0.95 + (0.027 if paired else 0.035)


def test_holm_on_a_worked_example_counts_what_could_not_be_compared():
    assert holm(pd.Series([0.01, 0.04, 0.03])).tolist() == pytest.approx([0.03, 0.06, 0.06])
    found = holm(pd.Series([0.02, np.nan, 0.9])).tolist()
    assert found[0] == pytest.approx(0.06)
    assert math.isnan(found[1])
    assert found[2] == 1


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        (CLEAR, "supported"),
        (NOISY, "not resolved"),
        (2 * BCE - CLEAR, "contradicted"),
        ([90.0], "not resolved"),
    ],
)
def test_the_verdict(values, verdict):
    assert corrected(compare(frame(bce=BCE, anchor_bg=values), "top1", "bce"))["verdict"].tolist() == [
        verdict
    ]


def test_families_are_corrected_by_themselves_and_what_was_not_planned_is_exploratory():
    runs = frame(bce=BCE, anchor_target=NOISY, anchor_bg=CLEAR, softmax=NOISY)
    runs = runs.assign(top5=runs["top1"], ece=-runs["top1"], experiment="table1_small")
    found = stats.verdicts(runs, "bce", [*LOSSES, "softmax"])
    assert found.loc["top1", "comparisons"].tolist() == [3, 3, 3, 1]
    assert (
        found.loc["top5", "comparisons"].tolist() == found.loc["ece", "comparisons"].tolist() == [6, 6, 6, 2]
    )
    assert found.loc[("top1", "anchor_bg"), "holm"] == pytest.approx(
        3 * found.loc[("top1", "anchor_bg"), "p"]
    )
    assert found["verdict"].loc[:, "anchor_bg"].tolist() == ["supported"] * 3  # a lower error is better
    assert found["exploratory"].tolist() == [False, False, False, True] * 2 + [True] * 4
    own = stats.verdicts(runs.assign(experiment="mine"), "bce")
    assert not own["exploratory"].any()


# Cohen (1988), table 2.4.1, two-sided 0.05, power 0.80: 393 (394 by exact software), 64, 26 a group; pairs by G*Power 3.
@pytest.mark.parametrize(("effect", "groups", "pairs"), [(0.2, 394, 199), (0.5, 64, 34), (0.8, 26, 15)])
def test_seeds_needed_are_cohens_and_g_powers(effect, groups, pairs):
    assert (seeds_needed(effect, (1.0, 1.0)), seeds_needed(effect, [1.0])) == (groups, pairs)


@settings(deadline=None, max_examples=40)
@given(st.floats(-3, 3), st.integers(3, 40))
def test_power_is_the_tail_of_the_noncentral_t(effect, n):
    critical, shift = scipy.t.isf(0.025, n - 1), effect * np.sqrt(n)
    expected = scipy.nct.sf(critical, n - 1, shift) + scipy.nct.cdf(-critical, n - 1, shift)
    if math.isfinite(expected):
        assert power(effect, [1.0], n) == pytest.approx(expected, abs=1e-5)


def test_power_of_two_seeds_where_scipys_noncentral_t_has_no_value():
    powers = [power(effect, [1.0], 2) for effect in (1, 10, 50, 100, 1000)]
    assert powers == sorted(powers)
    assert powers[-1] == pytest.approx(1.0)


def test_welch_power_is_what_simulated_experiments_show():
    draw = np.random.default_rng(1)
    first, second = draw.normal(0.37, 0.34, (20_000, 11)), draw.normal(0, 0.22, (20_000, 11))
    rejected = scipy.ttest_ind(first, second, axis=1, equal_var=False).pvalue <= 0.05
    assert power(0.37, (0.34, 0.22), 11) == pytest.approx(rejected.mean(), abs=0.01)
    assert seeds_needed(0.37, (0.34, 0.22)) == 11


@settings(deadline=None, max_examples=40)
@given(st.floats(0.05, 5), st.floats(0.05, 5), st.integers(2, 30))
def test_the_detectable_difference_is_detected_with_the_power_asked_for(first, second, n):
    assert power(detectable((first, second), n), (first, second), n) == pytest.approx(0.8)


def test_nothing_is_needed_where_nothing_can_be_said():
    for arguments in ((0.0, [0.3]), (math.nan, [0.3]), (0.3, [0.0]), (0.3, ()), (1e-9, [1.0])):
        assert math.isnan(seeds_needed(*arguments))
    assert math.isnan(detectable((), 5))


def test_a_spread_from_five_pairs_leaves_the_number_of_seeds_open():
    """In a printed table chi-squared with 4 degrees of freedom has quantiles 0.484 and 11.143."""
    bounds = stats.spread_bounds(4)
    assert bounds == pytest.approx((np.sqrt(4 / 11.143), np.sqrt(4 / 0.4844)), rel=1e-3)
    assert [seeds_needed(0.37, [factor * 1.014]) for factor in (bounds[0], 1, bounds[1])] == [24, 61, 489]


def test_the_permutation_test_keeps_ties():
    """Differences in hundredths 49, 62, -15, -23, -47, 25, from accuracies near 89."""
    own = np.array([89.20, 89.48, 88.89, 89.12, 88.62, 89.11])
    base = np.array([88.71, 88.86, 89.04, 89.35, 89.09, 88.86])
    assert stats.permutation(own, base, True) == 40 / 64


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(-300, 300), min_size=2, max_size=6), st.booleans())
def test_every_arrangement_is_counted_exactly(hundredths, paired):
    base = np.array([8800 + 7 * place for place in range(len(hundredths))])
    own = base + hundredths
    if paired:
        sums = [abs(np.dot(signs, hundredths)) for signs in itertools.product([1, -1], repeat=len(own))]
        extreme = [one >= abs(sum(hundredths)) for one in sums]
    else:
        pooled, n = np.concatenate([own, base]), len(own)
        splits = [pooled[list(chosen)].sum() for chosen in itertools.combinations(range(2 * n), n)]
        extreme = [abs(2 * one - pooled.sum()) >= abs(2 * own.sum() - pooled.sum()) for one in splits]
    assert stats.permutation(own / 100, base / 100, paired) == pytest.approx(np.mean(extreme))


def test_many_pairs_are_drawn_the_same_way_every_time():
    first, second = np.random.default_rng(5).normal([[0.3], [0.0]], 1, (2, 40))
    found = stats.permutation(first, second, True)
    assert found == stats.permutation(first, second, True)
    assert found == pytest.approx(scipy.ttest_rel(first, second).pvalue, abs=0.02)
    assert math.isnan(stats.permutation(first[:1], second[:1], True))


def test_the_probability_of_improvement_is_mann_whitneys_u():
    share, low, high = stats.improvement(np.array(SLEEP_2), np.array(SLEEP_1))
    assert share == pytest.approx(scipy.mannwhitneyu(SLEEP_2, SLEEP_1).statistic / 100)
    assert low < share < high
    draw = np.random.default_rng(11)
    shares = [
        scipy.mannwhitneyu(draw.choice(SLEEP_2, 10), draw.choice(SLEEP_1, 10)).statistic / 100
        for _ in range(1500)
    ]
    assert (low, high) == pytest.approx(np.quantile(shares, [0.025, 0.975]), abs=0.05)
    assert stats.improvement(np.array([1.0]), np.array([1.0]))[0] == 0.5


def test_the_amendment_agrees_with_independent_formulas():
    """Ten invented seeds; the paper's figures are 0.37 above BCE for (ii), deviations 0.34 and 0.22."""
    draw = np.random.default_rng(7)
    top1 = {loss: np.round(65 + draw.normal(0, 0.35, 10), 2) for loss in LOSSES}
    found = stats.amendment(frame(**top1))
    for loss, claimed, deviation in (
        ("anchor_target", 0.18, 0.53),
        ("anchor_bg", 0.37, 0.34),
        ("anchor_both", 0.02, 0.40),
    ):
        one, deltas = found.loc[loss], top1[loss] - top1["bce"]
        error = deltas.std(ddof=1) / math.sqrt(10)
        assert one["published"] == pytest.approx(claimed)
        assert one["excluded"] == (deltas.mean() + scipy.t.ppf(0.975, 9) * error < claimed)
        ends = [deltas.mean() + sign * scipy.t.ppf(0.95, 9) * error for sign in (-1, 1)]
        assert list(one[["low90", "high90"]]) == pytest.approx(ends)
        sides = [
            scipy.ttest_1samp(deltas, bound, alternative=side).pvalue
            for bound, side in ((-0.37, "greater"), (0.37, "less"))
        ]
        assert one["p"] == pytest.approx(max(sides))
        assert one["equivalent"] == (ends[0] > -0.37 and ends[1] < 0.37) == (max(sides) < 0.05)
        parts = [(error**2, 9), (deviation**2 / 5, 4), (0.22**2 / 5, 4)]
        total = sum(part for part, _ in parts)
        df = total**2 / sum(part**2 / freedom for part, freedom in parts)
        half = scipy.t.ppf(0.975, df) * math.sqrt(total)
        above = deltas.mean() - claimed
        assert list(one[["low_5", "high_5"]]) == pytest.approx([above - half, above + half])
        assert one["pooled"] == pytest.approx(top1[loss].mean() - top1["bce"].mean())
        # Dunnett's p lies between that of one pooled t test and Bonferroni's.
        variance = np.mean([values.var(ddof=1) for values in top1.values()])
        alone = 2 * scipy.t.sf(abs(one["pooled"]) / math.sqrt(variance / 5), 36)
        assert alone <= one["pooled_p"] <= min(1, 3 * alone) + 0.01
        assert one["pooled_low"] < one["pooled"] < one["pooled_high"]
