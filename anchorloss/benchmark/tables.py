"""The rows of a measurement as Markdown tables, and their place in a page."""

from __future__ import annotations

import re
from collections.abc import Sequence

from anchorloss.benchmark.rows import Row
from anchorloss.errors import UserError

# Table 1 with five seeds, and the minutes it is to take.
TABLE1_MODEL, TABLE1_RUNS, TABLE1_EPOCHS, TABLE1_MINUTES = "resnet110", 20, 200, 60
TRAINING_IMAGES = 50_000
NOT_MEASURED = "not measured"


def to_markdown(rows: Sequence[Row]) -> str:
    """All tables of one measurement, with a heading each."""
    device = next(row.variant for row in rows if row.section == "provenance" and row.quantity == "device")
    head = f"# {device}\n\nMedians over the rounds; in brackets the lowest and the highest round.\n"
    return head + "".join(f"\n## {title}\n\n{body}" for title, body in tables(rows).items() if body)


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """The tables by their title; empty where nothing was measured."""
    return {
        "The ladder": _ladder(rows),
        "How near to the ceilings": _nearness(rows),
        "Where a step's time goes": _operators(rows),
        "Ceilings": _ceilings(rows),
        "Work": _work(rows),
        "Several runs at once": _concurrent(rows),
        "Growing work": _growth(rows),
        "Table 1 in an hour": _projection(rows),
        "Where and when": _where(rows),
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


def _ladder(rows: Sequence[Row]) -> str:
    quantities = ("images", "ratio to the textbook loop", "first step", "memory")
    return _table(
        ["model", "loop", "images/s", "x textbook", "first step, s", "MiB"],
        [
            [row.model, row.variant, *(_cell(found.get(quantity)) for quantity in quantities)]
            for row, found in _by_variant(rows, "ladder")
        ],
    )


def _nearness(rows: Sequence[Row]) -> str:
    """Achieved operations and bytes a second over the best measured; their sum is 1 for a step that does its
    operations at the best convolution's rate, then moves its bytes at the best copy's."""
    lines = []
    for row, found in _by_variant(rows, "ladder"):
        operations, moved = found["operations"].median, found["bytes"].median
        of_convolution = operations / _best(rows, f"convolution {row.precision}")
        of_copy = moved / _best(rows, "copy")
        lines.append(
            [
                row.model,
                row.variant,
                f"{operations:.0f}",
                f"{100 * of_convolution:.0f} %",
                f"{moved:.1f}",
                f"{100 * of_copy:.0f} %",
                f"{100 * (of_convolution + of_copy):.0f} %",
            ]
        )
    header = [
        "model",
        "loop",
        "GFLOP/s",
        "of the best convolution",
        "GB/s",
        "of the best copy",
        "both",
    ]
    return _table(header, lines)


def _operators(rows: Sequence[Row]) -> str:
    found = [row for row in rows if row.section == "operators"]
    lines = []
    for row in found:
        share = row.median / sum(other.median for other in found if other.model == row.model)
        lines.append([row.model, row.variant, _cell(row), f"{100 * share:.0f} %"])
    return _table(["model", "operator, forward and backward", "ms a step", "share"], lines)


def _ceilings(rows: Sequence[Row]) -> str:
    return _table(
        ["", "measured"],
        [[row.variant, f"{_cell(row)} {row.unit}"] for row in rows if row.section == "ceiling"],
    )


def _work(rows: Sequence[Row]) -> str:
    return _table(
        ["model", "precision", "counted", ""],
        [
            [row.model, row.precision, row.quantity, f"{row.median:,.1f} {row.unit}"]
            for row in rows
            if row.section == "work"
        ],
    )


def _concurrent(rows: Sequence[Row]) -> str:
    lines = []
    for row, found in _by_variant(rows, "concurrent"):
        images = found["images"].median
        epoch = TRAINING_IMAGES * row.runs / images
        memory = found["memory"].median / row.runs
        first = f"{found['first step'].median:.1f}"
        cells = [_cell(found["images"]), f"{epoch:.0f}", f"{epoch / row.runs:.1f}", f"{memory:.0f}", first]
        lines.append([row.model, row.variant, *cells])
    return _table(
        ["model", "runs", "images/s, all", "epoch of all, s", "epoch a run, s", "MiB a run", "first step, s"],
        lines,
    )


def _growth(rows: Sequence[Row]) -> str:
    quantities = ("step", "images", "first step", "memory")
    return _table(
        ["model", "batch", "step, ms", "images/s", "first step, s", "MiB"],
        [
            [row.model, str(row.batch_size), *(_cell(found.get(quantity)) for quantity in quantities)]
            for row, found in _by_variant(rows, "growth")
        ],
    )


def _projection(rows: Sequence[Row]) -> str:
    """What the goal asks of a device, and what this one would take."""
    images = TABLE1_RUNS * TABLE1_EPOCHS * TRAINING_IMAGES
    seconds = 60 * TABLE1_MINUTES
    work = {
        row.quantity: row.median * 1e6
        for row in rows
        if row.section == "work" and row.model == TABLE1_MODEL and row.precision == "bf16"
    }
    if not work:
        return ""
    lines = [
        ["images", f"{TABLE1_RUNS} runs x {TABLE1_EPOCHS} epochs x {TRAINING_IMAGES:,} = {images:.2e}"],
        [f"images a second, for {TABLE1_MINUTES} minutes", f"{images / seconds:,.0f}"],
        ["operations a second", f"{images / seconds * work['operations'] / 1e12:.0f} TFLOP/s"],
        ["bytes a second, every operator on its own", f"{images / seconds * work['bytes'] / 1e12:.1f} TB/s"],
    ]
    measured = [
        found["images"].median for row, found in _by_variant(rows, "ladder") if row.model == TABLE1_MODEL
    ]
    if measured:
        lines.append(["hours on the device measured here", f"{images / max(measured) / 3600:,.0f}"])
    return _table([f"{TABLE1_MODEL}, bf16", ""], lines)


def _where(rows: Sequence[Row]) -> str:
    return _table(["", ""], [[row.quantity, row.variant] for row in rows if row.section == "provenance"])


def _by_variant(rows: Sequence[Row], section: str) -> list[tuple[Row, dict[str, Row]]]:
    """Each variant's first row and its rows by quantity, in the order of the file."""
    found: dict[tuple[str, str, int], dict[str, Row]] = {}
    for row in rows:
        if row.section == section:
            found.setdefault((row.model, row.variant, row.batch_size), {})[row.quantity] = row
    return [(next(iter(quantities.values())), quantities) for quantities in found.values()]


def _best(rows: Sequence[Row], name: str) -> float:
    return max(row.median for row in rows if row.section == "ceiling" and name in row.variant)


def _cell(row: Row | None) -> str:
    if row is None:
        return NOT_MEASURED
    if row.samples < 2:
        return _number(row.median)
    return f"{_number(row.median)} ({_number(row.low)} to {_number(row.high)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    if not lines:
        return ""
    rule = ["---"] * len(header)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *lines)) + "\n"
