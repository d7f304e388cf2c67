"""The verdicts as plain Markdown, for those who read or cite them without the page."""

from __future__ import annotations

from anchorloss.analysis.comparison import sentence
from anchorloss.report.evidence import REFERENCE, Evidence
from anchorloss.report.sections_scores import SCORES, comparisons


def to_markdown(evidence: Evidence) -> str:
    """Every loss against BCE in Top-1 and Top-5; equal evidence gives equal text."""
    table = evidence.table
    lines = [f"# {' - '.join([f'Statistics of experiment {evidence.experiment}', *table.stamps])}", ""]
    for score, name in SCORES.items():
        lines += [f"{name}, better than BCE:", ""]
        for found in comparisons(evidence, score):
            claimed = evidence.published_difference(found.loss, score)
            said = sentence(found, evidence.label(found.loss), evidence.label(REFERENCE), name, claimed)
            lines.append(f"- {said}")
        lines.append("")
    return "\n".join([*lines, table.provenance, ""])
