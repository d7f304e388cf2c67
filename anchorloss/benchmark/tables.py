"""The rows of a measurement as Markdown tables, and their place in a page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import jinja2

from anchorloss.benchmark.rows import Row
from anchorloss.errors import UserError

TEMPLATE = Path(__file__).with_name("tables.md.j2")
TRAINING_IMAGES = 50_000
NOT_MEASURED = "not measured"


def to_markdown(rows: Sequence[Row]) -> str:
    """All tables of one measurement, with a heading each."""
    device = next(row.variant for row in rows if row.section == "provenance" and row.quantity == "device")
    head = f"# {device}\n\nMedians over the rounds; in brackets the lowest and the highest round.\n"
    return head + "".join(f"\n## {title}\n\n{body}" for title, body in tables(rows).items() if body)


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """The tables by their title; empty where nothing was measured."""

    def section(name: str, **wanted: str) -> list[Row]:
        found = (row for row in rows if row.section == name)
        return [row for row in found if all(getattr(row, key) == value for key, value in wanted.items())]

    def variants(name: str) -> list[tuple[Row, dict[str, Row]]]:
        """Each variant's first row and its rows by quantity, in the order of the file."""
        found: dict[tuple[str, str, int], dict[str, Row]] = {}
        for row in section(name):
            found.setdefault((row.model, row.variant, row.batch_size), {})[row.quantity] = row
        return [(next(iter(quantities.values())), quantities) for quantities in found.values()]

    def best(name: str) -> float:
        return max(row.median for row in section("ceiling") if name in row.variant)

    template = jinja2.Template(TEMPLATE.read_text(encoding="utf-8"), trim_blocks=True, lstrip_blocks=True)
    page = template.render(
        section=section, variants=variants, best=best, cell=_cell, training_images=TRAINING_IMAGES
    )
    _, *parts = re.split(r"^## (.+)\n\s*", page, flags=re.MULTILINE)
    return {
        title: body.rstrip() + "\n" if body else ""
        for title, body in zip(parts[::2], parts[1::2], strict=True)
    }


def insert(page: str, rows: Sequence[Row]) -> str:
    """The page with everything between `<!-- table: TITLE -->` and `<!-- end -->` made anew.

    Raises:
        UserError: there is no table of such a title, or the page has no place for one.
    """
    known = tables(rows)

    def fill(match: re.Match[str]) -> str:
        if match[1] not in known:
            raise UserError(f"<!-- table: {match[1]} -->: no such table; use {', '.join(known)}")
        return f"<!-- table: {match[1]} -->\n{known[match[1]] or NOT_MEASURED}\n<!-- end -->"

    filled, blocks = re.subn(r"<!-- table: ([^>]+) -->\n.*?<!-- end -->", fill, page, flags=re.DOTALL)
    if not blocks:
        raise UserError(
            "--into: the page has no place for a table; add <!-- table: TITLE --> and <!-- end -->"
        )
    return filled


def _cell(row: Row | None) -> str:
    if row is None:
        return NOT_MEASURED
    if row.samples < 2:
        return _number(row.median)
    return f"{_number(row.median)} ({_number(row.low)} to {_number(row.high)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
