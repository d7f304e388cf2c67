"""Each loss against a reference: every statistic side by side, and what they amount to in one plain
sentence.

The verdict on the claim "this loss is better than the reference" follows one rule, fixed beforehand: with p
the two-sided t test's p-value after Holm's correction for all comparisons made,
    supported      p <= 0.05 and the difference is above zero,
    contradicted   p <= 0.05 and the difference is below zero,
    not resolved   otherwise, also where there are too few seeds for a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from anchorloss.analysis import power
from anchorloss.analysis.holm import holm
from anchorloss.analysis.stats import (
    Difference,
    Improvement,
    Permutation,
    Summary,
    difference,
    permutation_test,
    probability_of_improvement,
    summarise,
    welch,
)

ALPHA = 0.05
SUPPORTED = "supported"
NOT_RESOLVED = "not resolved"
CONTRADICTED = "contradicted"


@dataclass(frozen=True)
class Comparison:
    """One loss against the reference. `adjusted_p` is Holm's; the checks are None where only a mean and std
    are known.
    """

    loss: str
    reference: str
    summary: Summary
    reference_summary: Summary
    difference: Difference | None
    adjusted_p: float | None
    permutation: Permutation | None
    improvement: Improvement | None
    comparisons: int

    @property
    def verdict(self) -> str:
        """ "supported", "not resolved" or "contradicted": see the rule above."""
        if self.difference is None or self.adjusted_p is None or self.adjusted_p > ALPHA:
            return NOT_RESOLVED
        return SUPPORTED if self.difference.estimate > 0 else CONTRADICTED

    def seeds_needed(self, true_difference: float, alpha: float = ALPHA) -> int | None:
        """Seeds of each loss that would show `true_difference` (points) with 80 % power, were this spread
        the true one.

        None where the spread is unknown or zero.
        """
        if self.difference is None:
            return None
        if self.difference.design == "paired":
            spread = self.difference.spread
            return None if spread is None else power.paired_seeds(true_difference, spread, alpha=alpha)
        std, reference_std = self.summary.std, self.reference_summary.std
        if std is None or reference_std is None:
            return None
        return power.welch_seeds(true_difference, std, reference_std, alpha=alpha)

    def detectable(self) -> float | None:
        """The difference (points) that this many seeds show with 80 % power; for unequal groups, of the
        smaller size.
        """
        if self.difference is None or self.difference.p_value is None:
            return None
        n = min(self.difference.n, self.difference.n_reference)
        if self.difference.spread is not None:
            return power.paired_detectable(self.difference.spread, n)
        std, reference_std = self.summary.std, self.reference_summary.std
        if std is None or reference_std is None:
            return None
        return power.welch_detectable(std, reference_std, n)


def compare(values: Mapping[str, Mapping[int, float]], reference: str = "bce") -> tuple[Comparison, ...]:
    """Every other loss against `reference`, from loss -> seed -> value, in the order given.

    A loss without values stays in, and counts in the correction. Raises: KeyError if the reference is not
    there.
    """
    base = values[reference]
    found = [
        Comparison(
            loss=loss,
            reference=reference,
            summary=summarise(own),
            reference_summary=summarise(base),
            difference=difference(own, base),
            adjusted_p=None,
            permutation=permutation_test(own, base),
            improvement=probability_of_improvement(own, base),
            comparisons=0,
        )
        for loss, own in values.items()
        if loss != reference
    ]
    return _corrected(found)


def compare_published(
    published: Mapping[str, tuple[float, float]], n: int, reference: str = "bce"
) -> tuple[Comparison, ...]:
    """The same from loss -> (mean, std) as printed, for an assumed `n` >= 2 runs of each loss (Welch).

    Raises: KeyError if the reference is not there, ValueError for n < 2.
    """
    if n < 2:
        raise ValueError(f"n={n}: a printed standard deviation needs at least 2 runs")
    summaries = {loss: Summary(n, mean, std) for loss, (mean, std) in published.items()}
    base = summaries[reference]
    found = [
        Comparison(loss, reference, own, base, welch(own, base), None, None, None, 0)
        for loss, own in summaries.items()
        if loss != reference
    ]
    return _corrected(found)


def sentence(
    comparison: Comparison,
    label: str,
    reference_label: str,
    score: str = "Top-1",
    claimed: float | None = None,
) -> str:
    """The verdict in plain words; `claimed` is the published difference in points, if there is one."""
    return f"{label}: {comparison.verdict}. {explanation(comparison, reference_label, score, claimed)}"


def explanation(
    comparison: Comparison, reference_label: str, score: str = "Top-1", claimed: float | None = None
) -> str:
    """What the verdict rests on, in plain words."""
    found = comparison.difference
    if found is None:
        return f"There is no finished run to compare with {reference_label}."
    side = "above" if found.estimate >= 0 else "below"
    gap = f"Mean {score} is {abs(found.estimate):.2f} points {side} {reference_label}"
    if found.interval is None:
        counts = f"n = {found.n} and {found.n_reference}"
        return f"{gap}; with {counts} there is no spread, so no interval and no test."
    low, high = found.interval.low, found.interval.high
    how = f"{found.n} paired seeds"
    if found.design == "welch":
        how = f"{found.n} against {found.n_reference} runs, unpaired"
    parts = [f"{gap} (95 % interval {low:+.2f} to {high:+.2f}; {how})."]
    if found.p_value is None or comparison.adjusted_p is None:
        parts.append("The differences have no spread at all, so no test applies.")
        return " ".join(parts)
    corrected = f"; corrected for {comparison.comparisons} comparisons p {_p(comparison.adjusted_p)}"
    parts.append(f"p {_p(found.p_value)}{corrected if comparison.comparisons > 1 else ''}.")
    if found.p_value <= ALPHA < comparison.adjusted_p:
        parts.append("Alone it would pass; among the comparisons made it does not.")
    if comparison.verdict == NOT_RESOLVED:
        parts.extend(_power_sentences(comparison, found.estimate, claimed))
    if claimed is not None:
        where = "inside" if low <= claimed <= high else "outside"
        parts.append(f"The published difference of {claimed:+.2f} lies {where} the interval.")
    return " ".join(parts)


def _power_sentences(comparison: Comparison, estimate: float, claimed: float | None) -> list[str]:
    said = []
    detectable = comparison.detectable()
    if detectable is not None:
        said.append(f"These seeds show a true difference of {detectable:.2f} points four times in five.")
    aim, whose = (claimed, "the published") if claimed else (estimate, "a true")
    needed = comparison.seeds_needed(aim)
    if needed is not None:
        said.append(
            f"With this spread {whose} {abs(aim):.2f} points would take {needed:,} seeds of each loss."
        )
    return said


def _corrected(found: list[Comparison]) -> tuple[Comparison, ...]:
    adjusted = holm({c.loss: c.difference.p_value if c.difference else None for c in found})
    return tuple(replace(c, adjusted_p=adjusted[c.loss], comparisons=len(found)) for c in found)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"
