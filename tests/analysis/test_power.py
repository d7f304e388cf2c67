"""Power against scipy's noncentral t, simulation, and published sample sizes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from anchorloss.report.power import detectable, power, seeds, spread_bounds


@pytest.mark.parametrize(("effect", "n"), [(0.2, 394), (0.5, 64), (0.8, 26)])
def test_two_samples_need_cohens_numbers(effect, n):
    # Cohen (1988), table 2.4.1, two-sided 0.05, power 0.80: 393 (394 by exact software), 64, 26 a group.
    assert seeds(effect, (1.0, 1.0)) == n


@pytest.mark.parametrize(("effect", "n"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_pairs_need_the_numbers_of_g_power(effect, n):
    # G*Power 3, "difference between two dependent means", two-sided 0.05, power 0.80.
    assert seeds(effect, [1.0]) == n


@pytest.mark.parametrize("n", [3, 5, 10, 40])
@pytest.mark.parametrize("effect", [0.0, 0.5, 1.0, 2.0])
def test_power_is_the_tail_of_the_noncentral_t(n, effect):
    critical = stats.t.isf(0.025, n - 1)
    shift = effect * np.sqrt(n)
    expected = stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift)
    assert power(effect, [1.0], n) == pytest.approx(expected, abs=1e-6)
    assert power(-effect, [1.0], n) == pytest.approx(expected, abs=1e-6)


def test_power_stays_sane_where_scipys_noncentral_t_does_not():
    powers = [power(effect, [1.0], 2) for effect in (1, 10, 50, 100, 1000)]
    assert powers == sorted(powers)
    assert powers[-1] == pytest.approx(1.0)


def test_welch_power_is_what_simulated_experiments_show():
    generator = np.random.default_rng(1)
    first = generator.normal(0.37, 0.34, (20_000, 11))
    second = generator.normal(0.0, 0.22, (20_000, 11))
    rejected = stats.ttest_ind(first, second, axis=1, equal_var=False).pvalue <= 0.05
    assert power(0.37, (0.34, 0.22), 11) == pytest.approx(rejected.mean(), abs=0.01)


def test_the_papers_difference_needs_eleven_seeds_and_ten_do_not_suffice():
    assert seeds(0.37, (0.34, 0.22)) == 11
    assert power(0.37, (0.34, 0.22), 10) < 0.8 <= power(0.37, (0.34, 0.22), 11)


def test_the_detectable_difference_is_detected_with_the_power_asked_for():
    assert power(detectable([0.3], 5), [0.3], 5) == pytest.approx(0.8)
    found = detectable((0.34, 0.22), 5)
    assert power(found, (0.34, 0.22), 5) == pytest.approx(0.8)


def test_nothing_is_needed_where_nothing_can_be_said():
    assert seeds(0.0, [0.3]) is None
    assert seeds(0.3, [0.0]) is None
    assert seeds(0.3, (0.0, 0.0)) is None
    assert seeds(1e-9, [1.0]) is None


def test_the_interval_of_a_spread_covers_the_truth_95_times_in_100():
    stds = np.random.default_rng(3).normal(0, 0.35, (20_000, 5)).std(axis=1, ddof=1)
    low, high = spread_bounds(4)
    covered = (low * stds <= 0.35) & (high * stds >= 0.35)
    assert covered.mean() == pytest.approx(0.95, abs=0.005)


def test_a_spread_from_five_pairs_leaves_the_number_of_seeds_open():
    """In a printed table chi-squared with 4 degrees of freedom has quantiles 0.484 and 11.143."""
    assert spread_bounds(4) == pytest.approx((np.sqrt(4 / 11.143), np.sqrt(4 / 0.4844)), rel=1e-3)
    spread = 1.014  # of (ii) in table1_small
    low, high = (seeds(0.37, [factor * spread]) for factor in spread_bounds(4))
    assert (low, seeds(0.37, [spread]), high) == (24, 61, 489)
