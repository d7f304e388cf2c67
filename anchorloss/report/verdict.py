"""The first section of the page: does a loss do better than the reference, and what that rests on."""

from __future__ import annotations

import re
from typing import Any

from anchorloss.analysis.comparison import (
    ALPHA,
    CONTRADICTED,
    MEASURES,
    NOT_RESOLVED,
    SUPPORTED,
    Comparison,
    Measure,
    explanation,
)
from anchorloss.analysis.published import PAPER_LOSSES
from anchorloss.analysis.table import SCORES
from anchorloss.report import figures_scores
from anchorloss.report.data import ExperimentData
from anchorloss.report.text import (
    DASH,
    Content,
    count,
    interval,
    listed,
    number,
    p_value,
    signed,
    table,
)


def verdict(data: ExperimentData) -> Content:
    """The answer in one sentence, the differences drawn, and below them what it rests on."""
    found = data.comparisons["top1"]
    claims = [data.published_difference(c.loss, "top1") for c in found]
    drawn = [
        figures_scores.differences(data, data.comparisons[score], score, f"difference-{score}")
        for score in SCORES
    ]
    return {
        "sentence": answer(data),
        "figures": [(svg, "") for svg in drawn if svg],
        "verdicts": [
            (c, _typeset(explanation(c, data.reference_label, claimed=claim)))
            for c, claim in zip(found, claims, strict=True)
        ],
        "tests": [_tests(data, measure) for measure in MEASURES] if found else [],
        "checks": [_checks(data, measure) for measure in MEASURES] if found else [],
        "power": figures_scores.power_curve(
            data, found, max((claim or 0.0 for claim in claims), default=0.0) or None, "power"
        ),
    }


def answer(data: ExperimentData) -> str:
    """Which losses do better or worse than BCE in Top-1, in one sentence."""
    found = [c for c in data.comparisons["top1"] if c.difference is not None]
    if not found:
        return f"Nothing to compare: this needs finished runs of {data.reference_label} and of at least one other loss."
    parts = []
    for of_paper in (True, False):
        family = [c for c in found if (c.loss in PAPER_LOSSES) is of_paper]
        for kind, words in (
            (SUPPORTED, "better than"),
            (CONTRADICTED, "worse than"),
            (NOT_RESOLVED, "not resolved from"),
        ):
            named = [_named(data, c) for c in family if c.verdict == kind]
            if named:
                said = f"{words} {data.reference_label} in Top-1: {listed(named)}"
                parts.append(said if of_paper else f"beyond the paper, {said}")
    sentence = "; ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _named(data: ExperimentData, comparison: Comparison) -> str:
    """The loss, and its difference where that is resolved."""
    label, found = data.label(comparison.loss), comparison.difference
    if found is None or comparison.verdict == NOT_RESOLVED:
        return label
    return f"{label} ({signed(found.estimate)} points, 95 % interval {interval(found.interval)})"


def _tests(data: ExperimentData, measure: Measure) -> Content:
    rows: list[list[Any]] = []
    for c in data.comparisons[measure.key]:
        found = c.difference
        if found is None:
            rows.append([("loss", c.loss), *[DASH] * 8, ("badge", c.verdict)])
            continue
        design = f"{found.n} pairs"
        if found.design == "welch":
            design = f"{found.n} and {found.n_reference}, Welch"
        rows.append(
            [
                ("loss", c.loss),
                design,
                signed(found.estimate),
                interval(found.interval),
                number(found.t),
                number(found.degrees_of_freedom, "{:.1f}"),
                p_value(found.p_value),
                p_value(c.adjusted_p),
                number(found.correlation),
                ("badge", c.verdict),
            ]
        )
    columns = ["loss:short", "seeds:short", "difference", "95 % interval", "t", "df", "p", "p, Holm"]
    columns += ["correlation", "verdict:short"]
    note = f"{measure.kind}; two-sided t tests" + ("; lower is better" if measure.lower_is_better else "")
    return table(
        f"tests-{measure.key}", f"{measure.title} minus {data.reference_label}, points", note, columns, rows
    )


def _checks(data: ExperimentData, measure: Measure) -> Content:
    found = data.comparisons[measure.key]
    rows: list[list[Any]] = []
    for c in found:
        permutation, improvement = c.permutation, c.improvement
        claimed = data.published_difference(c.loss, measure.key)
        level = ALPHA / c.comparisons
        rows.append(
            [
                ("loss", c.loss),
                p_value(permutation.p_value if permutation else None),
                p_value(permutation.smallest_possible if permutation else None),
                number(improvement.probability if improvement else None),
                interval(improvement.interval if improvement else None, "{:.2f}"),
                number(c.detectable()),
                signed(claimed),
                count(c.seeds_needed(claimed) if claimed else None),
                _seeds_interval(c, claimed),
                count(c.seeds_needed(claimed, level) if claimed else None),
            ]
        )
    columns = ["loss:short", "permutation p", "smallest possible", "P(higher)", "95 % interval"]
    columns += ["minimum detectable", "published", "seeds needed", "95 % interval"]
    columns.append(f"at {ALPHA:g}/{max(c.comparisons for c in found)}")
    return table(f"checks-{measure.key}", f"{measure.title}: checks and power", "80 % power", columns, rows)


def _seeds_interval(comparison: Comparison, claimed: float | None) -> str:
    found = comparison.seeds_interval(claimed) if claimed else None
    if found is None or found[0] is None:
        return DASH
    return f"{found[0]:,} to " + ("over a million" if found[1] is None else f"{found[1]:,}")


def _typeset(text: str) -> str:
    """A sentence with real minus signs, and no line broken after `p =`."""
    text = re.sub(r"(?<= )-(?=\d)", "\N{MINUS SIGN}", text)
    return re.sub(r"\bp ([=<]) ", "p\N{NO-BREAK SPACE}\\1\N{NO-BREAK SPACE}", text)
