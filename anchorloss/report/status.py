"""The state of each run of an experiment, as aligned plain text."""

from __future__ import annotations

import textwrap
from collections import Counter
from pathlib import Path

from anchorloss.errors import UserError
from anchorloss.report.records import failure_text, order
from anchorloss.runs.folder import RUNS, RunFolder, read_runs
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


def describe_runs(runs: list[RunFolder], experiment: str) -> str:
    """Describe an experiment: a line of counts, then for each run its state, name, epochs, Top-1 so far, and a remark.

    A remark that does not fit in 80 columns goes on the next line.
    """
    counts = Counter(run.state for run in runs)
    states = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    lines = [("state", "run", "epoch", "top-1", "")]
    for run in sorted(runs, key=lambda run: (order(run.loss), run.seed, run.name)):
        lines.append((run.state, run.name, _epochs(run), _top1(run), _remark(run)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [f"{experiment}: {counted(len(runs), 'run')}: {states}", ""]
    for *cells, remark in lines:
        line = "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(cells, "<<>>", widths, strict=False)
        )
        if len(line) + 2 + len(remark) > WIDTH:
            text.append(line.rstrip())
            text += textwrap.wrap(remark, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT)
        else:
            text.append(f"{line}  {remark}".rstrip())
    if counts["interrupted"]:
        text += ["", "Interrupted runs continue when the same command is given again."]
    return "\n".join(text)


def duration(seconds: float) -> str:
    """Format seconds in a suitable unit: `59 s`, `10 min`, `1.5 h`, `2.0 days`."""
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 1:
        return f"{seconds:.0f} s"
    if hours < 1:
        return f"{minutes:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def runs_of(results_dir: Path, experiment: str) -> list[RunFolder]:
    """Read the runs of an experiment.

    Raises:
        UserError: It has no run, or a run is damaged.
    """
    runs = read_runs(results_dir, experiment)
    if not runs:
        raise UserError(
            f"--experiment {experiment}: no runs in {results_dir}; run python train.py experiment={experiment}"
        )
    return runs


def _epochs(run: RunFolder) -> str:
    if record := run.record:
        return f"{record.failure.epoch if record.failure else record.epochs}/{record.epochs}"
    return f"{run.progress.epoch}/{run.progress.epochs}" if run.progress else ""


def _top1(run: RunFolder) -> str:
    top1 = run.record.top1 if run.record else run.progress.top1 if run.progress else None
    return "" if top1 is None else f"{top1:.2f}"


def _remark(run: RunFolder) -> str:
    if run.record is not None:
        return (
            failure_text(run).removeprefix(": ") or f"in {duration(run.record.provenance.duration_seconds)}"
        )
    if run.state == "running" and run.progress is not None and run.progress.seconds_left is not None:
        return f"{duration(run.progress.seconds_left)} left"
    return ""
