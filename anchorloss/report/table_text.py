"""Table 1 as Markdown, LaTeX and CSV."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2

from anchorloss.report.comparison import REFERENCE
from anchorloss.report.markdown import document, escape, markdown_table, one_line, spread, spreadsheet_text
from anchorloss.report.protocol import planned
from anchorloss.report.published import published_for
from anchorloss.report.stats import Difference
from anchorloss.report.table import SCORES, LossRow, Score, Table, build_table
from anchorloss.runs.files import write_results
from anchorloss.runs.folder import read_runs

TEMPLATE = Path(__file__).with_name("table1.tex.j2")


def make_table(results_dir: Path, experiment: str, reference: str = REFERENCE) -> Table:
    """Read the records of an experiment and write its `table1.md`, `.tex` and `.csv` under `results_dir`.

    The differences are from the loss `reference`.

    Raises:
        UserError: There is no record, or the records cannot be in one table.
        RunError: A file cannot be written.
    """
    table = build_table(read_runs(results_dir, experiment), experiment, planned(experiment), reference)
    texts = {"md": to_markdown(table), "tex": to_latex(table), "csv": to_csv(table)}
    write_results(
        results_dir / experiment, {f"table1.{suffix}": text.encode() for suffix, text in texts.items()}
    )
    return table


def to_markdown(table: Table) -> str:
    """Return the table as Markdown that also reads well as plain text."""
    cells = [[escape(row.label), *_cells(table, row, "—", "**{}**")] for row in table.rows]
    caveat, notes = "", ""
    if table.stamps and _has_paper(table):
        stamps = escape(", ".join(table.stamps))
        caveat = (
            f"Compare only the differences from {table.label(table.reference)} with the paper's: {stamps}."
        )
    if table.notes:
        notes = "\n".join(["Not in the means:", "", *(f"- {escape(note)}" for note in table.notes)])
    return document(
        f"# {escape(table.title)}",
        escape(table.protocol),
        markdown_table(_header(table), cells),
        caveat,
        notes,
        table.provenance,
    )


def to_latex(table: Table) -> str:
    """Return the table as a LaTeX `table` for the booktabs package."""
    # Delimiters that LaTeX does not use.
    environment = jinja2.Environment(
        *("<%", "%>", "<<", ">>", "<#", "#>"), trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters["latex"] = _latex
    dash, rows = "--", []
    for row in table.rows:
        cells = _cells(table, row, dash, "\\textbf{{{}}}")
        marked = [f"${cell}$" if cell[0] in "+-" and cell != dash else cell for cell in cells]
        rows.append([_latex(row.label), *(cell.replace("±", "$\\pm$") for cell in marked)])
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(table=table, header=_header(table), rows=rows)


def to_csv(table: Table) -> str:
    """Return the table as CSV with all digits; a cell without a value is empty."""
    import pandas as pd  # half a second that the other formats do not need

    rows = [_csv_row(table, row) for row in table.rows]
    return pd.DataFrame(rows, dtype=object).to_csv(index=False, lineterminator="\n")


def _csv_row(table: Table, row: LossRow) -> dict[str, Any]:
    scores, minus = row.scores.items(), f"minus_{table.reference}"
    cells: dict[str, Any] = {
        "experiment": spreadsheet_text(table.experiment),
        "data": spreadsheet_text(table.data_label),
        "evaluated_on": spreadsheet_text(table.evaluated_on),
        "comparable_with_paper": str(not table.stamps).lower(),
        "loss": spreadsheet_text(row.loss),
        "label": spreadsheet_text(row.label),
        "n": row.top1.n,
        "planned": row.planned,
        "failed": row.failed,
    }
    for name, score in scores:
        cells |= {f"{name}_mean": score.mean, f"{name}_std": score.std}
    for name, score in scores:
        mean, std = score.published or (None, None)
        cells |= {f"paper_{name}_mean": mean, f"paper_{name}_std": std}
    cells |= {f"{name}_minus_paper": table.above_paper(score) for name, score in scores}
    cells |= {f"{name}_{minus}": score.difference and score.difference.estimate for name, score in scores}
    cells |= {f"paper_{name}_{minus}": score.published_difference for name, score in scores}
    for name, score in scores:
        found = score.difference.interval if score.difference else None
        cells |= {f"{name}_{minus}_low": found and found.low, f"{name}_{minus}_high": found and found.high}
    return cells


def _cells(table: Table, row: LossRow, dash: str, bold: str) -> list[str]:
    """The cells of a row after the label."""
    scores = row.scores.values()
    return [
        row.counted,
        *(_score(row, score, dash, bold) for score in scores),
        *_comparison_cells(table, row, dash),
    ]


def _score(row: LossRow, score: Score, dash: str, bold: str) -> str:
    if score.mean is None and not row.failed:
        return "not run"
    text = spread(score, dash)
    return bold.format(text) if score.best else text


def _header(table: Table) -> list[str]:
    """Beside our figures stand the paper's, where they may be compared; else only differences."""
    header = ["loss", "n", *SCORES.values()]
    differences = [f"{top} - {table.label(table.reference)}" for top in SCORES.values()]
    if table.stamps:
        paper = [f"paper {difference}" for difference in differences if _has_paper(table)]
        return [*header, *(f"{difference} (95 %)" for difference in differences), *paper]
    return [
        *header,
        f"{differences[0]} (95 %)",
        "paper Top-1",
        "paper Top-5",
        "Top-1 - paper",
        "Top-5 - paper",
    ]


def _comparison_cells(table: Table, row: LossRow, dash: str) -> list[str]:
    scores = row.scores.values()
    if table.stamps:
        claims = [score.published_difference for score in scores if _has_paper(table)]
        return [*(_with_interval(score.difference, dash) for score in scores), *_signed(claims, dash)]
    paper = [
        dash if score.published is None else "{:.2f} ± {:.2f}".format(*score.published) for score in scores
    ]
    return [_with_interval(row.top1.difference, dash), *paper, *_signed(map(table.above_paper, scores), dash)]


def _signed(values: Iterable[float | None], dash: str) -> list[str]:
    return [dash if value is None else f"{value:+.2f}" for value in values]


def _with_interval(found: Difference | None, dash: str) -> str:
    if found is None:
        return dash
    interval = found.interval
    return f"{found.estimate:+.2f}" + (f" [{interval.low:+.2f}, {interval.high:+.2f}]" if interval else "")


def _has_paper(table: Table) -> bool:
    """Whether the paper has figures for this data set."""
    return bool(published_for(table.data_label))


_LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "±": "$\\pm$",
    "—": "---",
}


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in one_line(text))
