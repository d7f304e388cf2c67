"""What the tests of both engines share: a sweep of four runs, and what must have come of it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import ROOT, SMALL, command

LOSSES = ("bce", "anchor_target", "anchor_bg", "anchor_both")
# Five seconds a run and more: long enough to be struck in the middle.
SWEEP = ("-m", f"loss={','.join(LOSSES)}", *SMALL, "optim.epochs=40", "checkpoint_seconds=0.5")


class ClusterSweep:
    """`train.py` with a launcher, in a folder of its own, as a user would start it."""

    def __init__(self, folder: Path, environment: dict[str, str], *launcher: str) -> None:
        self.folder = folder
        self.environment = environment
        self.command = command(*SWEEP, *launcher, "results_dir=results")
        self._started: list[subprocess.Popen[str]] = []

    def start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self.command,
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._started.append(process)
        return process

    def close(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()

    def runs(self) -> list[Path]:
        return sorted((self.folder / "results" / "runs" / "scratch").glob("*"))

    def under_way(self) -> list[Path]:
        """The runs that have a checkpoint to go on from, and no record yet."""
        return [run for run in self.runs() if (run / "checkpoint.pt").exists() and not is_done(run)]

    def assert_complete(self) -> None:
        """Four runs with one record each, and a whole table."""
        records = [json.loads((run / "record.json").read_text()) for run in self.runs()]
        assert sorted(record["loss"] for record in records) == sorted(LOSSES)
        assert {record["status"] for record in records} == {"finished"}
        assert not [path for run in self.runs() for path in run.glob("checkpoint*")]
        subprocess.run(
            [sys.executable, ROOT / "scripts" / "make_table1.py", "--experiment=scratch"],
            cwd=self.folder,
            check=True,
            capture_output=True,
        )
        with (self.folder / "results" / "scratch" / "table1.csv").open() as table:
            rows = list(csv.DictReader(table))
        assert len(rows) == 4
        assert {row["n"] for row in rows} == {"1"}

    def assert_same_as_undisturbed(self) -> None:
        """The records and histories are those of a sweep in one process that nobody disturbed."""
        undisturbed = self.folder / "undisturbed"
        subprocess.run(
            command(*SWEEP, f"results_dir={undisturbed}"),
            cwd=self.folder,
            env={**self.environment, "OMP_NUM_THREADS": "1"},
            check=True,
            capture_output=True,
        )
        for run in self.runs():
            twin = undisturbed / "runs" / "scratch" / run.name
            assert said(run) == said(twin)
            assert (run / "history.csv").read_bytes() == (twin / "history.csv").read_bytes()


def is_done(run: Path) -> bool:
    return (run / "record.json").exists()


def said(run: Path) -> dict[str, Any]:
    """A record without its provenance, which its checksum covers."""
    record = json.loads((run / "record.json").read_text())
    return {key: value for key, value in record.items() if key not in ("provenance", "checksum")}


def resumed(run: Path) -> int:
    return json.loads((run / "record.json").read_text())["provenance"]["resumed"]


def wait_until(what: Callable[[], Any], seconds: float = 180) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what} did not come about within {seconds} s")
