"""The answer: verdicts, the table beside the paper's, every seed, and the statistics."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from anchorloss.analysis.comparison import ALPHA, REFERENCE, Comparison, compare_published, explanation
from anchorloss.analysis.table import Row
from anchorloss.report import figures_scores
from anchorloss.report.colours import Style
from anchorloss.report.data import ExperimentData
from anchorloss.report.markup import (
    DASH,
    Column,
    badge,
    escape,
    figures,
    interval,
    loss_name,
    number,
    probability,
    spread,
    table,
)

SCORES = {"top1": "Top-1", "top5": "Top-5"}
ASSUMED_RUNS = (3, 5, 10)
Styles = Mapping[str, Style]


def verdicts(data: ExperimentData, styles: Styles) -> str:
    """One line for each loss on Top-1, and the differences drawn."""
    found, reference = data.comparisons["top1"], escape(data.reference_label)
    if not found:
        return f"<p>Nothing to compare: the experiment needs {reference} and at least one other loss.</p>"
    lines = []
    for comparison in found:
        claimed = data.published_difference(comparison.loss, "top1")
        said = explanation(comparison, data.reference_label, claimed=claimed)
        style = styles[comparison.loss]
        name = loss_name(data.label(comparison.loss), style)
        lines.append(
            f'<li style="--c:var(--{style.variable})"><b>{name} better than {reference}: {badge(comparison.verdict)}</b>'
            f"{_set(said)}</li>"
        )
    pictures = [
        (
            figures_scores.differences(data, styles, data.comparisons[score], score, f"difference-{score}"),
            "",
        )
        for score in SCORES
    ]
    said = f'<ul class="verdicts">{"".join(lines)}</ul>'
    return f'<div class="beside">{said}{figures(pictures)}</div>'


def beside_the_paper(data: ExperimentData, styles: Styles) -> str:
    """Table 1 with the published figures, and every seed drawn."""
    rows = []
    for row in data.table.rows:
        cells = [loss_name(row.label, styles[row.loss]), escape(row.counted)]
        for score in SCORES:
            ours = spread(getattr(row, score))
            cells.append(f'<span class="best">{ours}</span>' if getattr(row, f"best_{score}") else ours)
        for score in SCORES:
            paper = row.published
            if paper is None:
                cells.append(DASH)
            else:
                cells.append(f"{getattr(paper, f'{score}_mean'):.2f} ± {getattr(paper, f'{score}_std'):.2f}")
        if not data.table.stamps:
            cells += [_above_paper(row, score) for score in SCORES]
        rows.append(cells)
    heading = "paper, not comparable" if data.table.stamps else "paper"
    columns = [
        Column("loss", "short"),
        Column("n"),
        Column("Top-1"),
        Column("Top-5"),
        Column(f"Top-1, {heading}"),
        Column(f"Top-5, {heading}"),
    ]
    if not data.table.stamps:
        columns += [Column(f"{title} minus paper") for title in SCORES.values()]
    parts = [
        table(
            "table-scores", "Table 1", columns, rows, "mean ± sample standard deviation over n seeds, percent"
        )
    ]
    if data.table.notes:
        missing = "".join(f"<li><code>{escape(note)}</code></li>" for note in data.table.notes)
        parts.append(f"<p>Not in the means:</p><ul>{missing}</ul>")
    caption = "A mark a seed; below, the mean and its 95 % interval."
    if not data.table.stamps:
        caption += " Grey: the published mean ± std."
    parts.append(
        figures(
            [(figures_scores.every_seed(data, styles, score, f"seeds-{score}"), caption) for score in SCORES]
        )
    )
    return "".join(parts)


def statistics(data: ExperimentData, styles: Styles) -> str | None:
    """The tests and the power, Top-1 and Top-5."""
    parts = []
    for score, title in SCORES.items():
        found = data.comparisons[score]
        if not found:
            return None
        parts.append(f"<h3>{title}</h3>")
        parts.append(_tests(data, styles, found, score, title))
        parts.append(_checks(data, styles, found, score, title))
    found = data.comparisons["top1"]
    claimed = max(
        (data.published_difference(c.loss, "top1") or 0.0 for c in found),
        default=0.0,
    )
    curve = figures_scores.power_curve(data, styles, found, claimed or None, "power")
    caption = "How small a true Top-1 difference n seeds of each loss show four times in five, with the spread seen here."
    return "".join(parts) + figures([(curve, caption)])


def published(data: ExperimentData, styles: Styles) -> str | None:
    """What the paper's own figures show under an assumed number of runs."""
    if REFERENCE not in data.published:
        return None
    parts = []
    for score, title in SCORES.items():
        given = {
            loss: (getattr(row, f"{score}_mean"), getattr(row, f"{score}_std"))
            for loss, row in data.published.items()
        }
        by_runs = {n: compare_published(given, n) for n in ASSUMED_RUNS}
        rows = []
        for index, first in enumerate(by_runs[ASSUMED_RUNS[0]]):
            assert first.difference is not None
            style = styles.get(first.loss)
            label = data.published[first.loss].label
            cells = [loss_name(label, style) if style else escape(label)]
            cells.append(number(first.difference.estimate, "{:+.2f}"))
            for n in ASSUMED_RUNS:
                comparison = by_runs[n][index]
                assert comparison.difference is not None
                cells += [
                    number(comparison.difference.t, "{:.1f}"),
                    probability(comparison.adjusted_p),
                    badge(comparison.verdict),
                ]
            cells.append(_count(first.seeds_needed(first.difference.estimate)))
            rows.append(cells)
        columns = [Column("loss", "short"), Column("difference")]
        for n in ASSUMED_RUNS:
            columns += [
                Column(f"t, n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{n}"),
                Column("p, Holm"),
                Column("verdict", "short"),
            ]
        columns.append(Column("runs of each needed"))
        parts.append(table(f"published-{score}", f"The paper's {title} against its BCE", columns, rows))
    return "".join(parts)


def _tests(data: ExperimentData, styles: Styles, found: Sequence[Comparison], score: str, title: str) -> str:
    rows = []
    for comparison in found:
        difference = comparison.difference
        name = loss_name(data.label(comparison.loss), styles[comparison.loss])
        if difference is None:
            rows.append([name, *[DASH] * 7, badge(comparison.verdict)])
            continue
        design = f"{difference.n} pairs"
        if difference.design == "welch":
            design = f"{difference.n} and {difference.n_reference}, Welch"
        rows.append(
            [
                name,
                escape(design),
                number(difference.estimate, "{:+.2f}"),
                interval(difference.interval),
                number(difference.t, "{:.2f}"),
                number(difference.degrees_of_freedom, "{:.1f}"),
                probability(difference.p_value),
                probability(comparison.adjusted_p),
                badge(comparison.verdict),
            ]
        )
    columns = [
        Column("loss", "short"),
        Column("seeds", "short"),
        Column("difference"),
        Column("95 % interval"),
        Column("t"),
        Column("df"),
        Column("p"),
        Column("p, Holm"),
        Column("verdict", "short"),
    ]
    return table(
        f"tests-{score}", f"{title} minus {data.reference_label}, points", columns, rows, "two-sided t tests"
    )


def _checks(data: ExperimentData, styles: Styles, found: Sequence[Comparison], score: str, title: str) -> str:
    rows = []
    for comparison in found:
        permutation, improvement = comparison.permutation, comparison.improvement
        claimed = data.published_difference(comparison.loss, score)
        rows.append(
            [
                loss_name(data.label(comparison.loss), styles[comparison.loss]),
                probability(permutation.p_value if permutation else None),
                probability(permutation.smallest_possible if permutation else None),
                number(improvement.probability if improvement else None),
                interval(improvement.interval if improvement else None, "{:.2f}"),
                number(comparison.detectable()),
                number(claimed, "{:+.2f}"),
                _count(comparison.seeds_needed(claimed) if claimed else None),
                _count(comparison.seeds_needed(claimed, ALPHA / comparison.comparisons) if claimed else None),
            ]
        )
    columns = [
        Column("loss", "short"),
        Column("permutation p"),
        Column("smallest possible"),
        Column("P(better)"),
        Column("95 % interval"),
        Column("these seeds show"),
        Column("published"),
        Column("seeds it needs"),
        Column(f"at {ALPHA:g}/{max(c.comparisons for c in found)}"),
    ]
    return table(f"checks-{score}", f"{title}: checks and power", columns, rows, "power 80 %")


def _above_paper(row: Row, score: str) -> str:
    ours = getattr(row, score).mean
    if ours is None or row.published is None:
        return DASH
    return number(ours - getattr(row.published, f"{score}_mean"), "{:+.2f}")


def _set(text: str) -> str:
    """A sentence with real minus signs, and no line broken after `p =`."""
    text = re.sub(r"(?<= )-(?=\d)", "\N{MINUS SIGN}", text)
    return escape(re.sub(r"\bp ([=<]) ", "p\N{NO-BREAK SPACE}\\1\N{NO-BREAK SPACE}", text))


def _count(seeds: int | None) -> str:
    return DASH if seeds is None else f"{seeds:,}"
