"""The verdicts as plain Markdown, to read or cite without the page."""

from __future__ import annotations

from anchorloss.report.comparison import MEASURES, sentence
from anchorloss.report.data import ExperimentData


def to_markdown(data: ExperimentData) -> str:
    """Return every loss against the reference in every measure; equal data gives equal text."""
    table = data.table
    lines = [f"# {' - '.join([f'Statistics of experiment {data.experiment}', *table.labels])}", ""]
    for measure in MEASURES:
        kind = f"{measure.kind}; lower is better" if measure.lower_is_better else measure.kind
        lines += [f"{measure.title} ({kind}), better than {data.reference_label}:", ""]
        for found in data.comparisons[measure.key]:
            claimed = data.published_difference(found.loss, measure.key)
            lines.append(f"- {sentence(found, data.label(found.loss), data.reference_label, claimed)}")
        lines.append("")
    return "\n".join([*lines, table.provenance, ""])
