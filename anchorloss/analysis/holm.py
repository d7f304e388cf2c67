"""Holm's correction for several comparisons."""

from __future__ import annotations

from collections.abc import Mapping


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Adjust the p-values of one family of comparisons (Holm 1979, step-down).

    An entry without a p-value (its runs are missing) still counts as a comparison.

    Args:
        p_values: The p-value of each comparison, None where it could not be made.

    Returns:
        The adjusted p-values under the same names, in the same order.
    """
    family = len(p_values)
    adjusted: dict[str, float | None] = dict.fromkeys(p_values)
    known = sorted((p, name) for name, p in p_values.items() if p is not None)
    highest = 0.0
    for rank, (p, name) in enumerate(known):
        highest = max(highest, min(1.0, (family - rank) * p))
        adjusted[name] = highest
    return adjusted
