"""The templates, and how they are rendered."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from anchorloss.analysis.comparison import NOT_RESOLVED


@cache
def environment() -> Environment:
    """Everything that is not a template or a figure is escaped."""
    made = Environment(
        loader=PackageLoader("anchorloss.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["NOT_RESOLVED"] = NOT_RESOLVED
    return made
