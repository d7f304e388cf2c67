"""A small results folder with every kind of run gives the tables, the statistics and the status that are kept beside it.

`results/runs/` has invented runs: failed, waiting, interrupted and missing ones (table1_small), pairs on one and on two
kinds of processor, a resolved winner (table1), a sweep over settings (lr_resnet20), another data set (one_seed).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from anchorloss.analysis import frame, table
from tests.commands import Done, call

GOLDEN = Path(__file__).parent
EXPERIMENTS = ("lr_resnet20", "one_seed", "table1", "table1_small")
REFERENCES = {"lr_resnet20": "bce", "table1_small": "anchor_bg"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that the commands make from the runs, in the places of the files under `GOLDEN`."""
    folder = tmp_path_factory.mktemp("golden")
    results = folder / "results"
    shutil.copytree(GOLDEN / "results" / "runs", results / "runs")
    (folder / "status.txt").write_text(ran("status.py", results).stdout)
    for experiment in EXPERIMENTS:
        ran("make_table1.py", results, experiment)
        if experiment != "lr_resnet20":
            text = table.statistics(frame.runs(experiment, results))
            (results / experiment / "statistics.md").write_text(text)
    for experiment, reference in REFERENCES.items():
        again = folder / "reference"
        shutil.copytree(results / "runs" / experiment, again / "runs" / experiment)
        ran("make_table1.py", again, experiment, "--reference", reference)
    shutil.rmtree(folder / "reference" / "runs")
    return folder


def ran(script: str, results: Path, *experiment: str) -> Done:
    named = ("--experiment", *experiment) if experiment else ()
    done = call(script, "--results-dir", results, *named)
    assert done.returncode == 0, done.stderr
    return done


def test_every_file_is_made_again_byte_for_byte(made: Path) -> None:
    def files(folder: Path) -> dict[str, str]:
        kept = (
            path
            for path in folder.rglob("*.*")
            if path.is_file() and "runs" not in path.relative_to(folder).parts
        )
        return {str(path.relative_to(folder)): path.read_text() for path in kept if path.suffix[:3] != ".py"}

    assert files(made) == files(GOLDEN)
