"""Every table and figure kept under results/ is what the records beside it give, byte for byte."""

from __future__ import annotations

import pytest

from anchorloss.report import ablation, bf16, curves, listing, statistics_text
from anchorloss.report.data import read_experiment
from anchorloss.report.protocol import planned
from anchorloss.report.table import build_table
from anchorloss.report.table_text import to_csv, to_latex, to_markdown
from anchorloss.runs.folder import read_runs
from tests.conftest import ROOT

RESULTS = ROOT / "results"
# Each file's name, and how it is made from the name of its experiment.
MAKERS = {
    "table1.md": lambda name: to_markdown(table(name)),
    "table1.tex": lambda name: to_latex(table(name)),
    "table1.csv": lambda name: to_csv(table(name)),
    "statistics.md": lambda name: statistics_text.to_markdown(read_experiment(RESULTS, name)),
    "curves.md": lambda name: curves.to_markdown(curves.read_curves(RESULTS, name)),
    "runs.md": lambda name: listing.list_runs(RESULTS, name),
    "precision.md": lambda name: bf16.compare_precisions(
        RESULTS, name, {"precision_small": "table1_small"}.get(name)
    ),
    "ablation.md": lambda name: ablation.to_markdown(ablation.read_ablation(RESULTS, name, "table1_small")),
}
KEPT = sorted(
    path for name in MAKERS for path in RESULTS.glob(f"*/{name}") if path.parent.name != "published"
)


def table(name: str):
    return build_table(read_runs(RESULTS, name), name, planned(name))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_kept_table_is_what_its_records_give(path):
    assert MAKERS[path.name](path.parent.name) == path.read_text()
