"""The state of each run of an experiment, as aligned plain text."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pandas as pd

from anchorloss.analysis import frame
from anchorloss.analysis.text import duration, failure, number
from anchorloss.errors import UserError
from anchorloss.runs.differences import flatten
from anchorloss.runs.folder import RUNS
from anchorloss.terminal import counted

WIDTH, INDENT = 80, " " * 4
STATES = ("finished", "running", "failed", "interrupted", "waiting")


def experiments_of(results_dir: Path) -> list[str]:
    """List the experiments that have runs, sorted by name.

    Raises:
        UserError: There is none.
    """
    parent = results_dir / RUNS
    folders = parent.iterdir() if parent.is_dir() else ()
    names = sorted(
        path.name for path in folders if path.name[0] != "." and path.is_dir() and any(path.iterdir())
    )
    if not names:
        raise UserError(f"--results-dir {results_dir}: there are no runs; start some with python train.py")
    return names


def describe(runs: pd.DataFrame) -> str:
    """Describe an experiment: a line of counts, then for each run its state, name, epochs, Top-1 so far, and a remark.

    Runs of a sweep over settings are called by loss, seed and those settings. A remark that does not fit in 80 columns
    goes on the next line.
    """
    counts, names = runs["state"].value_counts(), _names(runs)
    states = ", ".join(f"{counts[state]} {state}" for state in STATES if state in counts)
    lines = [("state", "run", "epoch", "Top-1", "")]
    named = zip(names, runs.to_dict("records"), strict=True)
    for name, run in sorted(named, key=lambda one: (frame.order(one[1]["loss"]), one[1]["seed"], one[0])):
        lines.append((run["state"], name, *_progress(run)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [f"{runs['experiment'].iloc[0]}: {counted(len(runs), 'run')}: {states}", ""]
    for *cells, remark in lines:
        line = "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(cells, "<<>>", widths, strict=False)
        )
        if len(line) + 2 + len(remark) > WIDTH:
            text.append(line.rstrip())
            text += textwrap.wrap(remark, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT)
        else:
            text.append(f"{line}  {remark}".rstrip())
    if "interrupted" in counts:
        text += ["", "Interrupted runs continue when the same command is given again."]
    return "\n".join(text)


def _names(runs: pd.DataFrame) -> list[str]:
    """What each run is called: its folder, or where runs differ in settings, these in place of the hash."""
    if not (keys := frame.swept(runs[runs["settings"].map(len) > 0])):
        return list(runs.index)
    names = []
    for run in runs.to_dict("records"):
        flat = flatten(run["settings"])
        said = [f"{key.removeprefix('loss.')} {json.dumps(flat[key])}" for key in keys if key in flat]
        names.append(", ".join([f"{run['loss']} seed {run['seed']}", *said]))
    return names


def _progress(run: dict[Hashable, Any]) -> tuple[str, str, str]:
    """How many epochs a run has done, its Top-1 so far, and a remark."""
    if run["state"] in ("finished", "failed"):
        reached = run["failure.epoch"] if run["state"] == "failed" else run["epochs"]
        remark = failure(run) or f"in {duration(run['provenance.duration_seconds'])}"
        return f"{reached:.0f}/{run['epochs']:.0f}", number(run["top1"], dash=""), remark
    if pd.isna(run["progress.epoch"]):
        return "", "", ""
    left = run["progress.seconds_left"] if run["state"] == "running" else None
    epochs = f"{run['progress.epoch']:.0f}/{run['progress.epochs']:.0f}"
    return epochs, number(run["progress.top1"], dash=""), "" if pd.isna(left) else f"{duration(left)} left"
