"""Table 1 as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from anchorloss.analysis.comparison import REFERENCE
from anchorloss.analysis.markdown import escape, markdown_table, one_line, spreadsheet_text
from anchorloss.analysis.protocol import planned
from anchorloss.analysis.stats import Difference, Summary
from anchorloss.analysis.table import LossRow, Table, build_table
from anchorloss.config.settings import DATA_SETS
from anchorloss.runs.atomic import write_results
from anchorloss.runs.store import read_runs


def make_table(results_dir: Path, experiment: str, reference: str = REFERENCE) -> Table:
    """Read the records of an experiment and write its `table1.md`, `.tex` and `.csv` under `results_dir`.

    Args:
        results_dir: The results folder.
        experiment: The experiment's name.
        reference: The loss that the differences are from.

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
    dash = "—"
    header = ["loss", "n", "Top-1", "Top-5", *_comparison_header(table)]
    cells = [
        [
            escape(row.label),
            row.counted,
            _bold(_spread(row, row.top1, dash), "**", "**", row.best_top1),
            _bold(_spread(row, row.top5, dash), "**", "**", row.best_top5),
            *_comparison_cells(table, row, dash),
        ]
        for row in table.rows
    ]
    lines = [f"# {escape(table.title)}", "", escape(table.protocol), "", markdown_table(header, cells)]
    if table.stamps and _has_paper(table):
        reference = _reference_label(table)
        stamps = escape(", ".join(table.stamps))
        lines += ["", f"Only the differences from {reference} stand beside the paper's: {stamps}."]
    if table.notes:
        lines += ["", "Not in the means:", "", *(f"- {escape(note)}" for note in table.notes)]
    return "\n".join([*lines, "", table.provenance, ""])


def to_latex(table: Table) -> str:
    """Return the table as a LaTeX `table` for the booktabs package."""
    dash = "--"
    lines = [
        "% Made by scripts/make_table1.py; needs \\usepackage{booktabs}.",
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{_latex(table.title)}. {_latex(table.protocol)}}}",
        f"  \\begin{{tabular}}{{l{'r' * (3 + len(_comparison_header(table)))}}}",
        "    \\toprule",
        f"    loss & $n$ & Top-1 & Top-5 & {' & '.join(_latex(cell) for cell in _comparison_header(table))} \\\\",
        "    \\midrule",
    ]
    for row in table.rows:
        cells = [
            _latex(row.label),
            row.counted,
            _bold(_spread(row, row.top1, dash), "\\textbf{", "}", row.best_top1),
            _bold(_spread(row, row.top5, dash), "\\textbf{", "}", row.best_top5),
            *(
                f"${cell}$" if cell[0] in "+-" and cell != dash else cell
                for cell in _comparison_cells(table, row, dash)
            ),
        ]
        lines.append("    " + " & ".join(cells).replace("±", "$\\pm$") + " \\\\")
    lines += ["    \\bottomrule", "  \\end{tabular}"]
    if table.notes:
        lines += ["  \\par\\smallskip\\footnotesize Not in the means:"]
        lines += [f"  {_latex(note)}." for note in table.notes]
    return "\n".join([*lines, "\\end{table}", f"% {table.provenance}", ""])


def to_csv(table: Table) -> str:
    """Return the table as CSV with all digits; a cell without a value is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    scores = [f"{top}_{part}" for top in ("top1", "top5") for part in ("mean", "std")]
    first = [
        "experiment",
        "data",
        "evaluated_on",
        "comparable_with_paper",
        "loss",
        "label",
        "n",
        "planned",
        "failed",
    ]
    papers = [f"paper_{score}" for score in scores]
    compared = (("", "paper"), ("", table.reference), ("paper_", table.reference))
    differences = [f"{whose}{top}_minus_{what}" for whose, what in compared for top in ("top1", "top5")]
    ends = [f"{top}_minus_{table.reference}_{end}" for top in ("top1", "top5") for end in ("low", "high")]
    writer.writerow([*first, *scores, *papers, *differences, *ends])
    for row in table.rows:
        writer.writerow(
            [
                *map(spreadsheet_text, (table.experiment, table.data_label, table.evaluated_on)),
                str(not table.stamps).lower(),
                *map(spreadsheet_text, (row.loss, row.label)),
                *(row.top1.n, row.planned, row.failed),
                *(row.top1.mean, row.top1.std, row.top5.mean, row.top5.std),
                *(getattr(row.published, score) if row.published else None for score in scores),
                *_from_paper(table, row),
                *_from_reference(row),
                *_paper_from_reference(table, row),
                *_ends(row.top1_difference),
                *_ends(row.top5_difference),
            ]
        )
    return text.getvalue()


def _spread(row: LossRow, score: Summary, dash: str) -> str:
    if score.mean is None:
        return dash if row.failed else "not run"
    return f"{score.mean:.2f} ± {dash if score.std is None else f'{score.std:.2f}'}"


_Pair = tuple[float | None, float | None]


def _comparison_header(table: Table) -> list[str]:
    """What stands beside our figures: the paper's, where they may be compared; else only differences."""
    differences = [f"{top} - {_reference_label(table)}" for top in ("Top-1", "Top-5")]
    if table.stamps:
        return [
            *(f"{difference} (95 %)" for difference in differences),
            *(f"paper {difference}" for difference in differences if _has_paper(table)),
        ]
    return [f"{differences[0]} (95 %)", "paper Top-1", "paper Top-5", "Top-1 - paper", "Top-5 - paper"]


def _comparison_cells(table: Table, row: LossRow, dash: str) -> list[str]:
    if table.stamps:
        paper_differences = _paper_from_reference(table, row) if _has_paper(table) else ()
        ours = [_with_interval(found, dash) for found in (row.top1_difference, row.top5_difference)]
        return [*ours, *_signed(paper_differences, dash)]
    ours = [_with_interval(row.top1_difference, dash)]
    paper = row.published
    if paper is None:
        return [*ours, *[dash] * 4]
    scores = [(paper.top1_mean, paper.top1_std), (paper.top5_mean, paper.top5_std)]
    figures = [f"{mean:.2f} ± {std:.2f}" for mean, std in scores]
    return [*ours, *figures, *_signed(_from_paper(table, row), dash)]


def _signed(values: Iterable[float | None], dash: str) -> list[str]:
    return [dash if value is None else f"{value:+.2f}" for value in values]


def _from_paper(table: Table, row: LossRow) -> _Pair:
    """Our means minus the paper's, at the full protocol alone."""
    if table.stamps or row.published is None or row.top1.mean is None or row.top5.mean is None:
        return None, None
    return row.top1.mean - row.published.top1_mean, row.top5.mean - row.published.top5_mean


def _from_reference(row: LossRow) -> _Pair:
    one, other = row.top1_difference, row.top5_difference
    return one.estimate if one else None, other.estimate if other else None


def _ends(found: Difference | None) -> _Pair:
    return (found.interval.low, found.interval.high) if found and found.interval else (None, None)


def _with_interval(found: Difference | None, dash: str) -> str:
    if found is None:
        return dash
    interval = found.interval
    return f"{found.estimate:+.2f}" + (f" [{interval.low:+.2f}, {interval.high:+.2f}]" if interval else "")


def _paper_from_reference(table: Table, row: LossRow) -> _Pair:
    base = table.reference_row
    if base is None or row is base or row.published is None or base.published is None:
        return None, None
    ours, theirs = row.published, base.published
    return ours.top1_mean - theirs.top1_mean, ours.top5_mean - theirs.top5_mean


def _has_paper(table: Table) -> bool:
    """Whether a column for the paper makes sense: not for a data set of one's own."""
    return table.data_label in DATA_SETS.values()


def _reference_label(table: Table) -> str:
    return table.reference_row.label if table.reference_row is not None else "BCE"


def _bold(text: str, opening: str, closing: str, best: bool) -> str:
    return f"{opening}{text}{closing}" if best else text


_LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "±": "$\\pm$",
    "—": "---",
}


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in one_line(text))
