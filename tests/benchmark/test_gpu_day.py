"""The half hour with a GPU, rehearsed on the CPU: from the tests to runs that go on at home."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from anchorloss.runs.differences import same_result
from anchorloss.runs.folder import read_record
from tests.conftest import ROOT, SMALL

RUNS = (*SMALL, "loss=bce", "seeds=[0,1]", "optim.epochs=60", "concurrent=2", "experiment.name=rehearsed")


def script(name: str, *arguments: str, folder: Path) -> str:
    """What a command prints, which must end with status 0."""
    command = [sys.executable, str(ROOT / name), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_day_with_a_gpu_from_the_tests_to_runs_that_go_on_at_home(tmp_path):
    day = ("--experiment", "scratch", "--device", "cpu", "--results-dir", "away", "--models", "resnet8")
    said = script("scripts/gpu_day.py", *day, "--minutes", "3", "--only", "tests", "bench", folder=tmp_path)
    assert "needs a CUDA device" in said
    (measured,) = (tmp_path / "away" / "bench").glob("*.csv")
    assert "ceiling" in measured.read_text()
    said = script(
        "scripts/gpu_day.py", *day, "--minutes", "2", "--only", "plan", "--", *RUNS, folder=tmp_path
    )
    foretold = re.search(r"Fastest: .* \((\d+) s\) for 2 runs", said)
    assert foretold is not None, said
    half = ("--minutes", f"{int(foretold[1]) / 60 / 2:.2f}", "--only", "train")
    script("scripts/gpu_day.py", *day, *half, "--", *RUNS, folder=tmp_path)
    merge = ("away", "--into", "home", "--unfinished")
    assert "2 copied" in script("scripts/merge_results.py", *merge, folder=tmp_path)
    unfinished = sorted((tmp_path / "home" / "runs" / "rehearsed").iterdir())
    assert len(unfinished) == 2

    script("train.py", *RUNS, "results_dir=home", folder=tmp_path)
    script("train.py", *RUNS, "results_dir=undisturbed", folder=tmp_path)
    for folder in unfinished:
        record = read_record(folder)
        expected = read_record(tmp_path / "undisturbed" / "runs" / "rehearsed" / folder.name)
        assert record.provenance.resumed >= 1
        assert same_result(record, expected)
