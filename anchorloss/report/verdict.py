"""The first section of the page: does a loss do better than the reference, and what that rests on."""

from __future__ import annotations

import re

from anchorloss.report import figures_scores
from anchorloss.report.comparison import CONTRADICTED, NOT_RESOLVED, SUPPORTED, Comparison, explanation
from anchorloss.report.data import ExperimentData
from anchorloss.report.published import PAPER_LOSSES
from anchorloss.report.table import SCORES
from anchorloss.report.text import Content, interval, listed, signed


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
        "power": figures_scores.power_curve(
            data, found, max((abs(claim or 0.0) for claim in claims), default=0.0) or None, "power"
        ),
    }


def answer(data: ExperimentData) -> str:
    """Which losses do better or worse than the reference in Top-1, in one sentence."""
    found = [c for c in data.comparisons["top1"] if c.difference is not None]
    if not found:
        return f"Nothing to compare: this needs finished runs of {data.reference_label} and of at least one other loss."
    parts = []
    for of_paper in (True, False):
        family = [c for c in found if (c.loss in PAPER_LOSSES) is of_paper]
        for kind, words in (
            (SUPPORTED, "better than"),
            (CONTRADICTED, "worse than"),
            (NOT_RESOLVED, "no resolved difference from"),
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


def _typeset(text: str) -> str:
    """A sentence with real minus signs, and no line broken after `p =`."""
    text = re.sub(r"(?<= )-(?=\d)", "\N{MINUS SIGN}", text)
    return re.sub(r"\bp ([=<]) ", "p\N{NO-BREAK SPACE}\\1\N{NO-BREAK SPACE}", text)
