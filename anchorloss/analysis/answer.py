"""The answer to the paper's question in a sentence, for the report, and with a table and a figure for the README."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from anchorloss.analysis import figures, frame, paper, stats, table, text

# The largest first; the one with two or more seeds of every loss leads.
EXPERIMENTS = (paper.FULL, "table1_resnet20", "table1_small")
WORDS = {
    stats.SUPPORTED: "better than",
    stats.CONTRADICTED: "worse than",
    stats.NOT_RESOLVED: "no resolved difference from",
}


def sentence(found: pd.DataFrame, reference: str) -> str:
    """Say which losses do better or worse than the reference in the primary measure.

    Args:
        found: A row of `stats.verdicts` for each loss.
        reference: The loss that they are compared with.
    """
    against, parts = f"{paper.label(reference)} in {frame.MEASURES[frame.PRIMARY].name}", []
    found = found[found["difference"].notna()]
    for of_paper in (True, False):
        family = found[found.index.isin(paper.LOSSES) == of_paper]
        for verdict, words in WORDS.items():
            own = family[family["verdict"] == verdict]
            named = [
                paper.label(str(loss)) + (f" ({_interval(one)})" if verdict != stats.NOT_RESOLVED else "")
                for loss, one in own.iterrows()
            ]
            if named:
                beyond = "" if of_paper else "beyond the paper, "
                parts.append(f"{beyond}{words} {against}: {text.listed(named)}")
    if not parts:
        return (
            f"Nothing to compare: this needs finished runs of {paper.label(reference)} and of another loss."
        )
    said = "; ".join(parts)
    return f"{said[0].upper()}{said[1:]}."


def _interval(one: pd.Series) -> str:
    return text.with_interval(*one[list(table.INTERVAL)])


def size(runs: pd.DataFrame) -> str:
    """Network, epochs and seeds of an experiment: "ResNet-20, 40 epochs, 10 seeds"."""
    first, plan = table.basis(runs).iloc[0], paper.planned(runs["experiment"].iloc[0])
    seeds = paper.interim(runs, plan) or f"{len(plan.seeds)} seeds"
    return f"{first['model'].replace('resnet', 'ResNet-')}, {first['epochs']:.0f} epochs, {seeds}"


def readme(results_dir: Path) -> dict[str, bytes]:
    """Make what the README opens with: the answer, the table that it rests on, and a figure for either theme.

    Returns:
        Name of a file -> its content.

    Raises:
        UserError: A record is damaged, or runs cannot stand in one table.
    """
    compared = {}
    for experiment in EXPERIMENTS:
        if (results_dir / "runs" / experiment).is_dir():
            runs = frame.runs(experiment, results_dir)
            frame.require_one_protocol(runs[runs["state"] == "finished"])
            found = stats.compare(runs, frame.PRIMARY, paper.REFERENCE, names=paper.LOSSES)
            compared[experiment] = (runs, stats.corrected(found))
    decided = [name for name, (_, found) in compared.items() if found["low"].notna().all()]
    if not decided:
        return {
            "answer.md": f"**{paper.QUESTION}** Not known yet: no experiment has two seeds of every loss.\n".encode()
        }
    runs, found = compared[decided[0]]
    plan = paper.planned(decided[0])
    said = [f"**{paper.QUESTION}** {sentence(found, paper.REFERENCE)} {size(runs)}."]
    if paper.FULL not in compared:
        said.append("The full protocol (ResNet-110, 200 epochs) has not been run.")
    if paper.amended(runs, plan):
        excluded = [
            paper.label(str(loss)) for loss, one in stats.amendment(runs).iterrows() if one["excluded"]
        ]
        said.append(
            f"Excluded at this size: the published difference of {text.listed(excluded)}." if excluded else ""
        )
    numbers = table.numbers(runs, plan=plan)
    shown = table.cells(numbers).iloc[:, :4].loc[[*paper.LOSSES]].rename(paper.label)
    claimed = {loss: stats.published_difference(loss, frame.PRIMARY) for loss in found.index}
    title = f"{frame.MEASURES[frame.PRIMARY].name} minus {paper.label(paper.REFERENCE)}, percentage points"
    panels = {size(own): rows for own, rows in compared.values()}
    svg = figures.differences(panels, claimed, figures.arms(paper.LOSSES), "differences", title, width=6.6)
    return {
        "answer.md": f"{' '.join(filter(None, said))}\n".encode(),
        "table.md": f"{text.markdown_table(['loss', *shown], shown.itertuples(name=None))}\n".encode(),
        **{f"differences-{theme}.svg": figures.stand_alone(svg, theme) for theme in ("light", "dark")},
    }
