"""Statistics against independent computations, published worked examples, and simulation."""

from __future__ import annotations

import itertools
import math
import statistics as standard_library
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from scipy import stats

from anchorloss.report.holm import holm
from anchorloss.report.stats import (
    Interval,
    Summary,
    difference,
    mean_interval,
    permutation_test,
    probability_of_improvement,
    summarise,
    welch,
)

# Student, "The probable error of a mean", Biometrika 6 (1908): hours of sleep gained with two drugs.
SLEEP_1 = dict(enumerate([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]))
SLEEP_2 = dict(enumerate([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]))


def unpaired(values: dict[int, float]) -> dict[int, float]:
    """The same values under seeds that match nothing."""
    return {seed + 1000: value for seed, value in values.items()}


def test_mean_and_std_are_the_samples():
    found = summarise(SLEEP_1)
    assert (found.n, found.mean) == (10, pytest.approx(0.75))
    assert found.std == pytest.approx(standard_library.stdev(SLEEP_1.values()))


def test_one_value_has_no_spread_and_no_value_has_no_mean():
    assert summarise({3: 71.5}) == Summary(1, 71.5, None)
    assert summarise({}) == Summary(0, None, None)
    assert mean_interval({3: 71.5}) is None


def test_a_value_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="finite"):
        summarise({0: 71.0, 1: math.nan})


def test_the_mean_interval_of_equal_values_is_their_value():
    assert mean_interval({0: 50.0, 1: 50.0, 2: 50.0}) == Interval(50.0, 50.0)


def test_mean_interval_agrees_with_a_table_of_t():
    # t(0.975, 9) = 2.262 in every printed table.
    interval = mean_interval(SLEEP_2)
    half = 2.262157 * standard_library.stdev(SLEEP_2.values()) / math.sqrt(10)
    assert interval is not None
    assert (interval.low, interval.high) == (pytest.approx(2.33 - half), pytest.approx(2.33 + half))


def test_paired_difference_is_students_own_example():
    # R's t.test on the same data: t = 4.0621, df = 9, p = 0.002833, interval 0.7001142 to 2.4598858.
    found = difference(SLEEP_2, SLEEP_1)
    assert found is not None
    assert found.interval is not None
    assert (found.design, found.n, found.degrees_of_freedom) == ("paired", 10, 9)
    assert found.estimate == pytest.approx(1.58)
    assert found.t == pytest.approx(4.0621, abs=5e-5)
    assert found.p_value == pytest.approx(0.002833, abs=5e-7)
    assert (found.interval.low, found.interval.high) == (
        pytest.approx(0.7001142, abs=1e-6),
        pytest.approx(2.4598858, abs=1e-6),
    )


def test_unmatched_seeds_give_the_welch_example_on_the_same_data():
    # R's t.test without pairing: t = 1.8608, df = 17.776, p = 0.07939, interval -0.205 to 3.365.
    found = difference(unpaired(SLEEP_2), SLEEP_1)
    assert found is not None
    assert found.interval is not None
    assert found.design == "welch"
    assert found.t == pytest.approx(1.8608, abs=5e-5)
    assert found.degrees_of_freedom == pytest.approx(17.776, abs=5e-4)
    assert found.p_value == pytest.approx(0.07939, abs=5e-6)
    assert (found.interval.low, found.interval.high) == (
        pytest.approx(-0.2054832, abs=1e-6),
        pytest.approx(3.3654832, abs=1e-6),
    )


def test_pairing_is_by_seed_not_by_order():
    shuffled = dict(sorted(SLEEP_2.items(), key=lambda item: item[1]))
    assert difference(shuffled, SLEEP_1) == difference(SLEEP_2, SLEEP_1)


@pytest.mark.parametrize(
    ("seeds", "reference", "design", "n"),
    [
        ({0, 1, 2}, {0, 1, 2}, "paired", (3, 3)),
        ({0, 1}, {0, 1, 2}, "paired", (2, 2)),
        ({0, 1, 3}, {0, 1, 2}, "paired", (2, 2)),
        ({0}, {0, 1, 2}, "paired", (1, 1)),
        ({5, 6, 7}, {0, 1}, "welch", (3, 2)),
    ],
)
def test_only_the_seeds_that_both_have_are_compared(seeds, reference, design, n):
    first = {seed: 71.0 + seed**2 for seed in seeds}
    second = {seed: 70.0 + seed for seed in reference}
    shared = sorted(seeds & reference)
    means = [np.mean([side[seed] for seed in (shared or side)]) for side in (first, second)]
    for one, other, sign in ((first, second, 1), (second, first, -1)):
        found = difference(one, other)
        assert (found.design, found.n, found.n_reference) == (design, *n[::sign])
        assert found.estimate == pytest.approx(sign * (means[0] - means[1]))


def test_a_run_that_only_the_reference_has_moves_nothing():
    """BCE with two seeds and a loss with one of them: the means differ, the shared seed does not."""
    assert difference({0: 70.0}, {0: 70.0, 1: 78.7}).estimate == 0.0


def test_runs_that_may_not_be_paired_are_compared_by_welch_on_the_shared_seeds():
    found = difference(SLEEP_2, {**SLEEP_1, 99: 50.0}, pair=False)
    assert found == difference(unpaired(SLEEP_2), SLEEP_1)
    assert permutation_test(SLEEP_2, SLEEP_1, pair=False) == permutation_test(unpaired(SLEEP_2), SLEEP_1)


def test_the_correlation_of_the_pairs_is_pearsons():
    first, second = (list(values.values()) for values in (SLEEP_1, SLEEP_2))
    assert difference(SLEEP_2, SLEEP_1).correlation == pytest.approx(stats.pearsonr(first, second).statistic)
    assert difference(unpaired(SLEEP_2), SLEEP_1).correlation is None
    assert difference({0: 1.0, 1: 2.0}, {0: 5.0, 1: 3.0}).correlation is None  # two pairs: always 1 or -1
    assert difference({0: 1.0, 1: 2.0, 2: 4.0}, {0: 3.0, 1: 3.0, 2: 3.0}).correlation is None


def test_a_missing_seed_leaves_the_pairs_that_are_there():
    short = {seed: value for seed, value in SLEEP_2.items() if seed < 6}
    found = difference(short, SLEEP_1)
    assert found is not None
    assert (found.design, found.n, found.n_reference) == ("paired", 6, 6)
    assert found.p_value == pytest.approx(
        stats.ttest_rel(list(short.values()), [SLEEP_1[seed] for seed in short]).pvalue
    )


@pytest.mark.parametrize(("n", "t"), [(3, 1.6), (5, 2.0), (10, 2.9)])
def test_the_papers_best_row_under_an_assumed_number_of_runs(n, t):
    found = welch(Summary(n, 74.25, 0.34), Summary(n, 73.88, 0.22))
    oracle = stats.ttest_ind_from_stats(74.25, 0.34, n, 73.88, 0.22, n, equal_var=False)
    assert round(found.t, 1) == t
    assert (found.t, found.p_value) == (pytest.approx(oracle.statistic), pytest.approx(oracle.pvalue))


def test_one_seed_gives_a_difference_without_interval_or_test():
    found = difference({0: 74.0}, {0: 73.5})
    assert found is not None
    assert found.estimate == 0.5
    assert (found.spread, found.correlation, found.interval, found.t, found.p_value) == (None,) * 5
    assert permutation_test({0: 74.0}, {0: 73.5}) is None


def test_no_run_at_all_gives_nothing():
    assert difference({}, {0: 1.0}) is None
    assert probability_of_improvement({}, {0: 1.0}) is None


def test_differences_without_spread_have_no_p_value():
    values = {0: 71.3, 1: 72.1, 2: 70.7}
    found = difference({seed: value + 0.1 for seed, value in values.items()}, values)
    assert found is not None
    assert found.estimate == pytest.approx(0.1)
    assert (found.t, found.p_value) == (None, None)


@pytest.mark.parametrize("paired", [True, False])
def test_the_95_percent_interval_covers_the_truth_95_times_in_100(paired):
    """4,000 draws of five seeds; three binomial standard errors are 0.0103. Welch may be a little wide."""
    generator = np.random.default_rng(20191027)
    draws, truth, covered = 4000, 0.37, 0
    for _ in range(draws):
        seed_effect = generator.normal(0, 0.3, 5)
        reference = dict(enumerate(73.88 + seed_effect + generator.normal(0, 0.22, 5)))
        values = dict(enumerate(73.88 + truth + seed_effect * paired + generator.normal(0, 0.34, 5)))
        found = difference(values if paired else unpaired(values), reference)
        assert found is not None
        assert found.interval is not None
        covered += found.interval.low <= truth <= found.interval.high
    assert 0.95 - 0.0103 <= covered / draws <= 0.95 + (0.0103 if paired else 0.02)


def test_sign_flips_are_counted_exactly():
    deltas = np.array(list(SLEEP_2.values())) - np.array(list(SLEEP_1.values()))
    extreme = sum(
        abs(np.dot(signs, deltas)) >= abs(deltas.sum()) - 1e-9
        for signs in itertools.product([1, -1], repeat=10)
    )
    found = permutation_test(SLEEP_2, SLEEP_1)
    assert found is not None
    assert found.exact
    assert found.p_value == pytest.approx(extreme / 2**10)


@pytest.mark.parametrize(("n", "smallest"), [(3, 0.25), (5, 0.0625), (10, 2 / 1024)])
def test_the_smallest_p_value_of_n_pairs_is_reached_when_every_seed_agrees(n, smallest):
    reference = {seed: 70 + 0.3 * (seed % 3) for seed in range(n)}
    found = permutation_test({seed: value + 1 + 0.01 * seed for seed, value in reference.items()}, reference)
    assert found is not None
    assert found.p_value == found.smallest_possible == pytest.approx(smallest)


def test_labels_are_permuted_where_seeds_do_not_match():
    first, second = [74.1, 74.4, 74.2, 73.9], [73.8, 74.0, 73.6, 73.95]
    pooled = np.array(first + second)
    observed = abs(np.mean(first) - np.mean(second))
    splits = [set(chosen) for chosen in itertools.combinations(range(8), 4)]
    gaps = [pooled[list(s)].mean() - pooled[[i for i in range(8) if i not in s]].mean() for s in splits]
    expected = np.mean(np.abs(gaps) >= observed - 1e-9)
    found = permutation_test(unpaired(dict(enumerate(first))), dict(enumerate(second)))
    assert found is not None
    assert found.p_value == pytest.approx(expected)
    assert found.smallest_possible == pytest.approx(2 / math.comb(8, 4))


def test_many_seeds_are_sampled_the_same_way_every_time():
    generator = np.random.default_rng(5)
    first = dict(enumerate(generator.normal(0.3, 1, 40)))
    second = dict(enumerate(generator.normal(0, 1, 40)))
    found = permutation_test(first, second)
    assert found is not None
    assert not found.exact
    assert found == permutation_test(first, second)
    assert found.p_value == pytest.approx(
        stats.ttest_rel(list(first.values()), list(second.values())).pvalue, rel=0.1
    )


@pytest.mark.parametrize("paired", [True, False])
def test_sampled_permutations_agree_with_scipys(paired):
    generator = np.random.default_rng(8)
    first = dict(enumerate(generator.normal(0.35, 1, 60)))
    second = dict(enumerate(generator.normal(0, 1, 60)))
    found = permutation_test(first, second, pair=paired)
    x, y = (np.array(list(values.values())) for values in (first, second))
    sample = (x - y,) if paired else (x, y)
    oracle = stats.permutation_test(
        sample,
        (lambda d, axis: d.mean(axis)) if paired else (lambda a, b, axis: a.mean(axis) - b.mean(axis)),
        permutation_type="samples" if paired else "independent",
        vectorized=True,
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    )
    assert found.p_value == pytest.approx(oracle.pvalue, abs=4 * np.sqrt(oracle.pvalue / 20_000))


@pytest.mark.parametrize("paired", [True, False])
def test_memory_does_not_grow_with_resamples_times_pairs_of_runs(paired):
    """250 seeds of two losses: 20,000 resamples of 62,500 pairs would be 10 GB."""
    generator = np.random.default_rng(2)
    first, second = (dict(enumerate(generator.normal(0, 1, 250))) for _ in range(2))
    tracemalloc.start()
    permutation_test(first, second, pair=paired)
    probability_of_improvement(first, second)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400e6


def test_probability_of_improvement_is_mann_whitneys_u_over_the_number_of_pairs():
    found = probability_of_improvement(SLEEP_2, SLEEP_1)
    u = stats.mannwhitneyu(list(SLEEP_2.values()), list(SLEEP_1.values())).statistic
    assert found is not None
    assert found.interval is not None
    assert found.probability == pytest.approx(u / 100)
    assert found.interval.low < found.probability < found.interval.high


def test_probability_of_improvement_counts_a_tie_half():
    found = probability_of_improvement({0: 1.0, 1: 2.0}, {0: 1.0, 1: 3.0})
    assert found is not None
    assert found.probability == pytest.approx((0.5 + 0 + 1 + 0) / 4)


def test_probability_interval_agrees_with_a_loop_over_resamples():
    generator = np.random.default_rng(11)
    first, second = list(SLEEP_2.values()), list(SLEEP_1.values())
    shares = []
    for _ in range(4000):
        x, y = generator.choice(first, 10), generator.choice(second, 10)
        shares.append(stats.mannwhitneyu(x, y).statistic / 100)
    found = probability_of_improvement(SLEEP_2, SLEEP_1)
    assert found is not None
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx(
        tuple(np.quantile(shares, [0.025, 0.975])), abs=0.02
    )


def test_one_run_each_has_a_probability_without_interval():
    found = probability_of_improvement({0: 2.0}, {0: 1.0})
    assert found is not None
    assert (found.probability, found.interval) == (1.0, None)


def test_holm_on_a_worked_example():
    # p = 0.01, 0.04, 0.03, 0.005: Holm gives 0.03, 0.06, 0.06, 0.02 (Wikipedia, "Holm-Bonferroni method").
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_never_exceeds_one_and_counts_a_comparison_that_could_not_be_made():
    assert holm([0.7, 0.9]) == [1.0, 1.0]
    assert holm([0.02, None, None]) == pytest.approx([0.06, None, None])


def test_statistics_cost_no_torch():
    code = "import sys, anchorloss.report.comparison; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
