"""Numbers, sentences and Markdown."""

from __future__ import annotations

import math
import re
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anchorloss.analysis import stats, text
from anchorloss.analysis.text import escape, explanation, markdown_table, number
from tests.analysis.test_stats import BCE, NOISY, frame


@pytest.mark.parametrize(
    ("value", "form", "shown"),
    [
        *(
            (65.215, ".2f", "65.22"),
            (88.985, ".2f", "88.99"),
            (0.085, "+.2f", "+0.09"),
            (-0.085, "+.2f", "-0.09"),
        ),
        *((-0.001, "+.2f", "-0.00"), (1234.5, ",.0f", "1,235"), (math.nan, ".2f", "—"), (None, ".2f", "—")),
    ],
)
def test_an_exact_half_is_rounded_up(value, form, shown):
    assert number(value, form) == shown


@settings(deadline=None)
@given(st.integers(-(10**7), 10**7), st.sampled_from([1, 3, 5, 6, 7, 8, 10]))
def test_a_mean_of_accuracies_is_rounded_as_its_exact_value(hundredths, n):
    """The mean of n accuracies in hundredths, whose floating point may lie on either side of a half."""
    exact = Decimal(hundredths) / Decimal(100 * n)
    shown, step = Decimal(number(hundredths / 100 / n)), Decimal("0.005")
    assert abs(shown - exact) <= step + Decimal("1e-9")
    if abs(shown - exact) == step:
        assert abs(shown) > abs(exact)


def test_intervals_and_spreads_that_are_not_there_are_a_dash():
    assert text.mean_std(71.5, math.nan) == "71.50 ± —"
    assert text.with_interval(0.3, math.nan, math.nan, 2) == "+0.30 [—]"
    assert text.with_interval(0.3, math.nan, math.nan, 1) == "+0.30"
    assert text.with_interval(math.nan, math.nan, math.nan, 0) == "—"
    assert text.with_interval(0.125, -1, 1, 3) == "+0.13 [-1.00, +1.00]"
    assert text.signed(-0.5) == "\N{MINUS SIGN}0.50"
    assert (text.p_value(0.0004), text.p_value(0.0415)) == ("< 0.001", "= 0.042")
    assert text.listed(["a"]) == "a"
    assert text.listed(["a", "b", "c"]) == "a, b and c"


def test_durations_are_said_in_the_unit_of_their_size():
    said = [text.duration(seconds) for seconds in (0.4, 59, 600, 5400, 172_800)]
    assert said == ["0 s", "59 s", "10 min", "1.5 h", "2.0 days"]


def row(claimed=math.nan, **arms):
    found = stats.corrected(stats.compare(frame(**arms), "top1", "bce")).iloc[0]
    return found, explanation(found, "Top-1", "BCE", claimed)


def test_the_sentence_says_what_was_found_and_what_it_would_take():
    found, said = row(0.37, bce=BCE, anchor_bg=NOISY)
    low, high = stats.spread_bounds(4)
    detectable, (spread,) = stats.detectable(found["spreads"], 5), found["spreads"]
    needed, least, most = (stats.seeds_needed(0.37, [factor * spread]) for factor in (1, low, high))
    assert said.startswith("Mean Top-1 is 0.31 points above BCE (95 % interval ")
    assert f"; 5 paired seeds, correlation {found['correlation']:.2f})" in said
    assert f"(80 % power): {detectable:.2f} points (95 % interval {low * detectable:.2f} to " in said
    assert f"need {needed} seeds of each loss for 80 % power (95 % interval {least} to {most})" in said
    assert said.endswith("The published difference of +0.37 lies inside the interval.")
    assert "need" not in row(bce=BCE, anchor_bg=NOISY)[1]  # no power from the observed difference


@pytest.mark.parametrize(
    ("own", "counts"),
    [([74.4], "one shared seed"), ({9: 74.4}, "n = 1 and 5"), (BCE + 0.3, "equal differences"), ([], None)],
)
def test_the_sentence_claims_no_spread_where_there_is_none(own, counts):
    arms = frame(bce=BCE, anchor_bg=own)
    found = stats.corrected(stats.compare(arms, "top1", "bce", names=["bce", "anchor_bg"])).iloc[0]
    said = explanation(found, "Top-1", "BCE")
    if counts is None:
        assert said == "There is no finished run to compare with BCE."
    else:
        assert said.endswith(f"; with {counts} there is no spread, so no interval and no test.")


def test_the_amendment_says_all_three():
    draw = {loss: BCE.repeat(2) + shift for loss, shift in (("bce", 0), ("anchor_target", 0.01))}
    wobble = [0.02, -0.01] * 5
    draw |= {"anchor_bg": draw["bce"] + wobble, "anchor_both": draw["bce"] - 0.6 + wobble}
    draw["anchor_target"] = draw["anchor_target"] + wobble
    said = "\n".join(text.amendment(frame(**draw)))
    assert "(ii) background: a true difference of +0.37 is excluded, at this depth and length" in said
    assert "(ii) background: equivalent to BCE within 0.37 points (90 % interval " in said
    assert "(iii) both: not shown to be equivalent" in said
    assert "(i) target (descriptive): " in said
    assert re.search(
        r"- \(ii\) background: \+0\.\d\d points \(95 % interval \S+ to \S+; p = \d\.\d\d\)\.", said
    )


def test_a_table_is_padded_and_aligned():
    assert markdown_table(["loss", "n"], [["BCE", "5"], ["(i) target", "12"]]).splitlines() == [
        "| loss       |   n |",
        "| :--------- | --: |",
        "| BCE        |   5 |",
        "| (i) target |  12 |",
    ]


@settings(deadline=None)
@given(st.lists(st.lists(st.text(), min_size=2, max_size=2), max_size=4))
def test_no_escaped_text_breaks_a_table(rows):
    lines = markdown_table(["a", "b"], [[escape(cell) for cell in each] for each in rows]).splitlines()
    assert len(lines) == len(rows) + 2
    for line in lines:
        assert line.replace("\\\\", "").replace("\\|", "").count("|") == 3
        assert line.isprintable()


def test_foreign_text_is_shown_as_it_is():
    assert escape("a | <b>*c*</b> [d](e) `f` &amp;") == r"a \| \<b\>\*c\*\</b\> \[d\](e) \`f\` \&amp;"
    assert escape("x86_64\n\n# title\x1b[2J\u202e") == r"x86_64 \# title \[2J"
    assert escape("AMD EPYC (1 thread, AVX2)") == "AMD EPYC (1 thread, AVX2)"
