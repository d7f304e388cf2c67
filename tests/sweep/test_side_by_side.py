"""Runs side by side on a CPU's cores, by `train.py`, against each alone."""

from __future__ import annotations

from anchorloss.runs.differences import same_result
from anchorloss.runs.folder import read_runs, verify_files
from tests.conftest import SMALL


def test_runs_side_by_side_give_the_records_that_each_gives_alone(train, tmp_path):
    """Two at a time of four, ending and starting in turn, against one after another."""
    runs = {}
    for concurrent in ("1", "2"):
        which = ("-m", "loss=bce,anchor_bg", "seeds=[0,1]", "experiment.name=side")
        train(*SMALL, *which, f"concurrent={concurrent}", check=True)
        runs[concurrent] = read_runs(tmp_path / "results", "side")
        for run in runs[concurrent]:
            assert run.record is not None
            verify_files(run.folder, run.record)
        (tmp_path / "results").rename(tmp_path / f"concurrent{concurrent}")
    assert len(runs["1"]) == 4
    for alone, together in zip(runs["1"], runs["2"], strict=True):
        assert same_result(alone.record, together.record)
