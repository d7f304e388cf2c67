"""Tables in Markdown, and text from elsewhere that must stay text in Markdown and in a spreadsheet."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anchorloss.report.stats import Summary


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], align: str = "lr") -> str:
    """A table in GitHub's Markdown, padded so that it also reads well as plain text.

    Args:
        header, rows: the cells, each as Markdown; text that is not ours goes through `escape` first.
        align: `l` or `r` for each column; the last letter is that of all further columns.

    Raises:
        ValueError: if a row has another number of cells than the header.
    """
    columns = list(zip(*([_cell(cell) for cell in row] for row in [header, *rows]), strict=True))
    padded = []
    for column, side in zip(columns, align.ljust(len(columns), align[-1]), strict=False):
        # Three at least: some readers of Markdown take a rule of fewer for text.
        width = max(3, *map(len, column))
        rule = ":" + "-" * (width - 1) if side == "l" else "-" * (width - 1) + ":"
        cells = [cell.ljust(width) if side == "l" else cell.rjust(width) for cell in column]
        padded.append([cells[0], rule, *cells[1:]])
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*padded, strict=True))


def spread(summary: Summary, dash: str = "—", form: str = "{:.2f}") -> str:
    """Mean ± sample standard deviation. `dash` stands for what is not known; where it is empty, so is its place."""
    if summary.mean is None:
        return dash
    std = dash if summary.std is None else form.format(summary.std)
    return form.format(summary.mean) + (f" ± {std}" if std else "")


def document(*paragraphs: str) -> str:
    """A file of these paragraphs; empty ones are left out."""
    return "\n\n".join(filter(None, paragraphs)) + "\n"


def escape(text: str) -> str:
    """`text` as one line of Markdown that shows it as it is: no markup, HTML or terminal control in it works."""
    return re.sub(r"[\\`*\[\]<>|&#~$]", r"\\\g<0>", one_line(text))


def one_line(text: str) -> str:
    """`text` with every line break and unprintable character, and runs of spaces, replaced by one space."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def spreadsheet_text(text: str) -> str:
    """`text` as a cell of a CSV file that no spreadsheet takes for a formula: such a text gets an apostrophe first."""
    line = one_line(text)
    return f"'{line}" if line.startswith(("=", "+", "-", "@")) else line


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)((?:\\\\)*)\|", r"\1\\|", one_line(text))
