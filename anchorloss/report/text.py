"""How numbers and lists are written on the page: a real minus sign, a dash for what is not known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from anchorloss.report import markdown
from anchorloss.report.comparison import format_p
from anchorloss.report.stats import Difference, Interval, Summary

Content = dict[str, Any]
DASH = "\N{EN DASH}"


def number(value: float | None, form: str = "{:.2f}") -> str:
    """Return a number in `form`."""
    return DASH if value is None or math.isnan(value) else form.format(value).replace("-", "\N{MINUS SIGN}")


def signed(value: float | None) -> str:
    """Return a difference in points."""
    return number(value, "{:+.2f}")


def p_value(value: float | None) -> str:
    """Return a p-value with three digits."""
    return DASH if value is None else format_p(value).removeprefix("= ")


def spread(summary: Summary, form: str = "{:.2f}") -> str:
    """Return mean ± sample standard deviation; the latter a dash for one value."""
    return markdown.spread(summary, DASH, form)


def interval(found: Interval | None, form: str = "{:+.2f}") -> str:
    """Return low to high."""
    return DASH if found is None else f"{number(found.low, form)} to {number(found.high, form)}"


def with_interval(found: Difference | None) -> str:
    """Return a difference in points with its interval, where it has one."""
    if found is None or found.interval is None:
        return signed(found.estimate) if found else DASH
    return f"{signed(found.estimate)} ({interval(found.interval)})"


def listed(names: Sequence[str]) -> str:
    """Return names as in a sentence: "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
