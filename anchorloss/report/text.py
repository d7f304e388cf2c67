"""How numbers are written on the page: a real minus sign, a dash for what is not known."""

from __future__ import annotations

from anchorloss.analysis.stats import Interval, Summary

DASH = "\N{EN DASH}"


def number(value: float | None, form: str = "{:.2f}") -> str:
    """Return a number in `form`."""
    return DASH if value is None else form.format(value).replace("-", "\N{MINUS SIGN}")


def signed(value: float | None) -> str:
    """Return a difference in points."""
    return number(value, "{:+.2f}")


def p_value(value: float | None) -> str:
    """Return a p-value with three digits."""
    if value is None:
        return DASH
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def spread(summary: Summary, form: str = "{:.2f}") -> str:
    """Return mean ± sample standard deviation; the latter a dash for one value."""
    if summary.mean is None:
        return DASH
    return f"{number(summary.mean, form)} ± {number(summary.std, form)}"


def interval(found: Interval | None, form: str = "{:+.2f}") -> str:
    """Return low to high."""
    return DASH if found is None else f"{number(found.low, form)} to {number(found.high, form)}"


def count(value: int | None) -> str:
    """Return a number of seeds."""
    return DASH if value is None else f"{value:,}"
