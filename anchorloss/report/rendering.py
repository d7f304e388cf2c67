"""The templates, and how they are rendered."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from anchorloss.report import text
from anchorloss.report.comparison import ALPHA, MEASURES, NOT_RESOLVED
from anchorloss.report.table import SCORES
from anchorloss.runs.provenance import short_commit


@cache
def environment() -> Environment:
    """Everything that is not a template or a figure is escaped."""
    made = Environment(
        loader=PackageLoader("anchorloss.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.do"],
    )
    made.globals |= {"ALPHA": ALPHA, "MEASURES": MEASURES, "NOT_RESOLVED": NOT_RESOLVED, "SCORES": SCORES}
    made.globals["short_commit"] = short_commit
    written = (text.interval, text.number, text.p_value, text.signed, text.spread, text.with_interval)
    made.filters |= {form.__name__: form for form in written}
    return made
