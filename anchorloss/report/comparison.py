"""Each loss against a reference: the tests, the correction for making several, and the verdict in one sentence.

The claim "this loss is better than the reference" is judged by one rule. With p the two-sided t test's p-value after
Holm's correction within its family,
    supported      p <= 0.05 and the loss does better,
    contradicted   p <= 0.05 and the loss does worse,
    not resolved   otherwise, also where there are too few seeds for a test.

Families of `compare_measures`: the paper's losses in Top-1 are the primary comparisons. Their secondary measures,
Top-5 and expected calibration error, are corrected together. Losses that the paper does not have form two families of
their own in the same way, so that training one more does not make the paper's claims harder to support.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from anchorloss.report import power, stats
from anchorloss.report.holm import holm
from anchorloss.report.published import PAPER_LOSSES
from anchorloss.report.stats import Difference, Improvement, Permutation, Summary, Values

Processors = Mapping[str, Mapping[int, str]]

ALPHA = power.ALPHA
REFERENCE = "bce"
SUPPORTED = "supported"
NOT_RESOLVED = "not resolved"
CONTRADICTED = "contradicted"


@dataclass(frozen=True)
class Measure:
    """A score of a run, in percent."""

    key: str
    name: str
    kind: str = "secondary measure"
    lower_is_better: bool = False

    @property
    def title(self) -> str:
        """The name as it begins a heading."""
        return self.name[0].upper() + self.name[1:]


TOP1, TOP5 = Measure("top1", "Top-1", "primary measure"), Measure("top5", "Top-5")
ECE = Measure("ece", "expected calibration error", lower_is_better=True)
MEASURES = (TOP1, TOP5, ECE)


@dataclass(frozen=True)
class Comparison:
    """One loss against the reference in one measure.

    Attributes:
        summary, reference_summary: Of the runs compared: those of the shared seeds, if there are any.
        adjusted_p: Holm's, within the family of `comparisons`.
        permutation, improvement: None where only a mean and a standard deviation are known.
    """

    loss: str
    reference: str
    summary: Summary
    reference_summary: Summary
    difference: Difference | None
    permutation: Permutation | None = None
    improvement: Improvement | None = None
    measure: Measure = TOP1
    adjusted_p: float | None = None
    comparisons: int = 0

    @property
    def verdict(self) -> str:
        """ "supported", "not resolved" or "contradicted"; the module's docstring has the rule."""
        if self.difference is None or self.adjusted_p is None or self.adjusted_p > ALPHA:
            return NOT_RESOLVED
        better = (self.difference.estimate > 0) != self.measure.lower_is_better
        return SUPPORTED if better else CONTRADICTED

    def seeds_needed(self, true_difference: float, alpha: float = ALPHA, scale: float = 1.0) -> int | None:
        """Return the seeds of each loss that detect `true_difference` (points) with 80 % power.

        Args:
            true_difference: One fixed beforehand, as the published one. Power at the observed difference says no more
                than its p-value.
            scale: The true spread over the observed one.
        """
        return power.seeds(true_difference, [scale * spread for spread in self._spreads], alpha)

    def seeds_interval(self, true_difference: float) -> tuple[int | None, int | None] | None:
        """Return `seeds_needed` at both ends of the spread's 95 % interval; None where there is no spread to test.

        An end is None where it is more than a million.
        """
        if self.difference is None or self.difference.degrees_of_freedom is None:
            return None
        low, high = power.spread_bounds(self.difference.degrees_of_freedom)
        return self.seeds_needed(true_difference, scale=low), self.seeds_needed(true_difference, scale=high)

    def detectable(self, n: int | None = None) -> float | None:
        """Return the minimum detectable difference (80 % power, points) of `n` seeds of each loss.

        By default of as many as there are, for unequal groups of the smaller. None where there is no test.
        """
        found = self.difference
        if found is None or found.p_value is None or not self._spreads:
            return None
        return power.detectable(self._spreads, n or min(found.n, found.n_reference))

    def detectable_interval(self) -> tuple[float, float] | None:
        """Return `detectable` at both ends of the spread's 95 % interval; it is proportional to the spread."""
        found, detectable = self.difference, self.detectable()
        if detectable is None or found is None or found.degrees_of_freedom is None:
            return None
        low, high = power.spread_bounds(found.degrees_of_freedom)
        return low * detectable, high * detectable

    @property
    def _spreads(self) -> tuple[float, ...]:
        """What `power` takes: the spread of the pairs, or that of each loss; empty where one is not known."""
        if self.difference is not None and self.difference.spread is not None:
            return (self.difference.spread,)
        std, reference_std = self.summary.std, self.reference_summary.std
        return () if std is None or reference_std is None else (std, reference_std)


def compare(
    values: Mapping[str, Values], reference: str = REFERENCE, processors: Processors | None = None
) -> tuple[Comparison, ...]:
    """Compare every other loss with `reference` in Top-1; one family, in the order given.

    A loss without values stays in, and counts in the correction.

    Args:
        values: loss -> seed -> value.
        processors: loss -> seed -> kind of processor that trained the run. Another kind rounds differently, so two
            runs of one seed are a pair only on one kind. If a shared seed is no pair, the comparison is Welch's.

    Raises:
        KeyError: The reference is not among the losses.
    """
    return _corrected(_compare(values, reference, processors, TOP1))


def compare_measures(
    values: Mapping[str, Mapping[str, Values]],
    processors: Processors | None = None,
    reference: str = REFERENCE,
) -> dict[str, tuple[Comparison, ...]]:
    """Compare every loss with `reference` in each of `MEASURES`, corrected by the families of the module's docstring.

    Args:
        values: measure -> loss -> seed -> value.
        processors, reference: As for `compare`.

    Returns:
        measure -> comparisons, the paper's losses first; empty without runs of the reference's name.
    """
    made = [
        comparison
        for measure in MEASURES
        if reference in values[measure.key]
        for comparison in _compare(values[measure.key], reference, processors, measure)
    ]
    found: dict[str, tuple[Comparison, ...]] = {measure.key: () for measure in MEASURES}
    for of_paper, primary in itertools.product((True, False), repeat=2):
        family = [c for c in made if (c.loss in PAPER_LOSSES, c.measure is TOP1) == (of_paper, primary)]
        for comparison in _corrected(family):
            found[comparison.measure.key] += (comparison,)
    return found


def compare_published(published: Mapping[str, tuple[float, float]], n: int) -> tuple[Comparison, ...]:
    """Compare from loss -> (mean, std) as printed, for an assumed `n` runs of each loss (Welch).

    Raises:
        ValueError: n < 2.
    """
    if n < 2:
        raise ValueError(f"n={n}: a printed standard deviation needs at least 2 runs")
    summaries = {loss: Summary(n, mean, std) for loss, (mean, std) in published.items()}
    base = summaries.pop(REFERENCE)
    return _corrected(
        [Comparison(loss, REFERENCE, own, base, stats.welch(own, base)) for loss, own in summaries.items()]
    )


def sentence(comparison: Comparison, label: str, reference_label: str, claimed: float | None = None) -> str:
    """Return the verdict in plain words; `claimed` is the published difference in points, if there is one."""
    return f"{label}: {comparison.verdict}. {explanation(comparison, reference_label, claimed)}"


def explanation(comparison: Comparison, reference_label: str, claimed: float | None = None) -> str:
    """Return what the verdict rests on, in plain words."""
    found = comparison.difference
    if found is None:
        return f"There is no finished run to compare with {reference_label}."
    side = "above" if found.estimate >= 0 else "below"
    gap = f"Mean {comparison.measure.name} is {abs(found.estimate):.2f} points {side} {reference_label}"
    if found.interval is None:
        counts = "one shared seed" if found.design == "paired" else f"n = {found.n} and {found.n_reference}"
        return f"{gap}; with {counts} there is no spread, so no interval and no test."
    low, high = found.interval.low, found.interval.high
    how = f"{found.n} against {found.n_reference} runs, unpaired"
    if found.design == "paired":
        how = f"{found.n} paired seeds"
        how += "" if found.correlation is None else f", correlation {found.correlation:.2f}"
    parts = [f"{gap} (95 % interval {low:+.2f} to {high:+.2f}; {how})."]
    if found.p_value is None or comparison.adjusted_p is None:
        parts.append("The differences have no spread at all, so no test applies.")
        return " ".join(parts)
    corrected = f"; corrected for {comparison.comparisons} comparisons p {format_p(comparison.adjusted_p)}"
    parts.append(f"p {format_p(found.p_value)}{corrected if comparison.comparisons > 1 else ''}.")
    if found.p_value <= ALPHA < comparison.adjusted_p:
        parts.append("It is below 0.05 only before the correction.")
    detectable, bounds = comparison.detectable(), comparison.detectable_interval()
    if comparison.verdict == NOT_RESOLVED and detectable is not None and bounds is not None:
        parts.append(
            f"Minimum detectable difference (80 % power): {detectable:.2f} points "
            f"(95 % interval {bounds[0]:.2f} to {bounds[1]:.2f})."
        )
        interval = comparison.seeds_interval(claimed) if claimed else None
        if claimed and interval and (needed := comparison.seeds_needed(claimed)) is not None:
            least, most = interval
            upper = "more than a million" if most is None else f"{most:,}"
            parts.append(
                f"The published {abs(claimed):.2f} points need {needed:,} seeds of each loss for 80 % power "
                f"(95 % interval {least:,} to {upper})."
            )
    if claimed is not None:
        where = "inside" if low <= claimed <= high else "outside"
        parts.append(f"The published difference of {claimed:+.2f} lies {where} the interval.")
    return " ".join(parts)


def format_p(value: float) -> str:
    """Return a p-value with its relation: `= 0.041`, `< 0.001`."""
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def difference_between(
    values: Mapping[str, Values], loss: str, reference: str, processors: Processors | None = None
) -> Difference | None:
    """Return the difference of two losses, paired where the processors allow it; arguments as for `compare`."""
    own, base, pair = _shared_runs(values, loss, reference, processors)
    return stats.difference(own, base, pair=pair)


def resolved_winner(values: Mapping[str, Values], processors: Processors | None = None) -> str | None:
    """Return the loss with the highest mean if it is better than every other loss by the rule above, else None."""
    measured = {loss: stats.summarise(own).mean or 0.0 for loss, own in values.items() if own}
    if len(measured) < 2:
        return None
    best = max(measured, key=lambda loss: measured[loss])
    found = [difference_between(values, best, loss, processors) for loss in measured if loss != best]
    adjusted = holm([one.p_value if one else None for one in found])
    resolved = all(
        one is not None and one.estimate > 0 and p is not None and p <= ALPHA
        for one, p in zip(found, adjusted, strict=True)
    )
    return best if resolved else None


def _compare(
    values: Mapping[str, Values], reference: str, processors: Processors | None, measure: Measure
) -> list[Comparison]:
    found = []
    for loss in values:
        if loss == reference:
            continue
        own, base, pair = _shared_runs(values, loss, reference, processors)
        found.append(
            Comparison(
                loss,
                reference,
                stats.summarise(own),
                stats.summarise(base),
                stats.difference(own, base, pair=pair),
                stats.permutation_test(own, base, pair=pair),
                stats.probability_of_improvement(own, base),
                measure,
            )
        )
    return found


def _shared_runs(
    values: Mapping[str, Values], loss: str, reference: str, processors: Processors | None
) -> tuple[Values, Values, bool]:
    """The runs to compare, and whether they may be paired."""
    own, base = stats.shared_runs(values[loss], values[reference])
    kinds, base_kinds = ((processors or {}).get(name, {}) for name in (loss, reference))
    return own, base, all(kinds.get(seed) == base_kinds.get(seed) for seed in own)


def _corrected(found: Sequence[Comparison]) -> tuple[Comparison, ...]:
    adjusted = holm([c.difference.p_value if c.difference else None for c in found])
    return tuple(
        replace(c, adjusted_p=p, comparisons=len(found)) for c, p in zip(found, adjusted, strict=True)
    )
