"""Bringing run folders from other machines together: equal results merge, contradictions are refused."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from anchorloss.errors import RunError, UserError
from anchorloss.runs.claims import Claim
from anchorloss.runs.differences import describe_difference, same_result
from anchorloss.runs.files import LARGEST_TEXT, read_file, write_atomically, write_once
from anchorloss.runs.folder import (
    CONFIG,
    RUN_NAME,
    RUNS,
    WEIGHTS,
    Record,
    RunFolder,
    read_record,
    read_run,
    remove_leftovers,
    run_folder,
    subfolders,
    verify_files,
    write_record,
)


def plan_merge(sources: Iterable[Path], into: Path) -> tuple[list[tuple[RunFolder, Path]], list[str]]:
    """Look at every run under `sources` and decide where it goes; nothing is written.

    A source is a results folder, its `runs`, or the folder of one experiment; `into` is a results folder.

    Returns:
        Which run goes to which folder, and one line for every run that goes nowhere.

    Raises:
        UserError: names a damaged file, a source without runs, a run that is in progress in `into`, or all runs of which
            there are two different results.
    """
    copies: dict[Path, RunFolder] = {}
    skipped: list[str] = []
    conflicts: list[str] = []
    runs = [run for source in sources for run in runs_in(source)]
    # Of equal results the first one is copied: one with its weights, if there is any.
    for run in sorted(runs, key=lambda run: run.record is not None and WEIGHTS not in run.record.files):
        if run.record is None:
            skipped.append(f"{run.folder}: {run.state}, not ended")
            continue
        verify_files(run.folder, run.record)
        target = run_folder(into, run.record.experiment, run.name)
        other = copies.get(target) or (read_run(target) if target.exists() else None)
        if other is not None and other.state == "running":
            raise UserError(f"{target}: in progress, though {run.folder} has its result; stop it first")
        if other is None or other.record is None:
            copies[target] = run
        elif same_result(other.record, run.record):
            skipped.append(f"{run.folder}: the same result as {other.folder}")
        else:
            conflicts.append(f"{other.folder} and {run.folder} ({_differences(other.record, run.record)})")
    if conflicts:
        raise UserError(
            f"two results for one run, so nothing was merged: {'; '.join(conflicts)}; move one of each away"
        )
    return [(run, target) for target, run in copies.items()], skipped


def copy_run(run: RunFolder, target: Path) -> None:
    """Bring one ended run to `target`, its record last; an unfinished run that is there gives way.

    Raises:
        RunError: if it cannot be written, or another process has the run or has just finished it.
        UserError: the folder cannot be made, or a file is not the one in the record any more.
    """
    assert run.record is not None
    is_new = not target.exists()
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{target}: cannot be made: {error.strerror}; name another --into") from error
    claim = Claim(target)
    if not claim.acquire():
        raise RunError(f"{target}: another process works on this run; merge again when it is done")
    try:
        if read_record(target) is not None:
            raise RunError(f"{target}: another process has just finished this run; merge again")
        try:
            _fill(target, run.folder, run.record)
        except BaseException:
            if is_new:
                shutil.rmtree(target, ignore_errors=True)
            raise
        remove_leftovers(target)
    finally:
        claim.release()


def _fill(target: Path, source: Path, record: Record) -> None:
    for path in (source / CONFIG, *source.glob("failed-*.json")):
        content = read_file(path, LARGEST_TEXT)
        if content is not None and not (target / path.name).exists():
            write_once(target / path.name, content)
    for name in record.files:
        write_atomically(target / name, read_file(source / name) or b"")
    verify_files(target, record)
    write_record(target, record)


def runs_in(source: Path) -> list[RunFolder]:
    """The runs of a results folder, of its `runs`, or of one experiment.

    Raises:
        UserError: if there is none, or one is damaged or not named as a run.
    """
    inner = source / RUNS if (source / RUNS).is_dir() else source
    experiments = [subfolders(folder) for folder in (inner, *subfolders(inner))]
    found = [run for runs in experiments if any(RUN_NAME.fullmatch(run.name) for run in runs) for run in runs]
    if not found:
        raise UserError(
            f"{source}: holds no runs; name a results folder, its runs, or one experiment's folder"
        )
    return [read_run(folder) for folder in found]


def _differences(a: Record, b: Record) -> str:
    difference = describe_difference(a.result(), b.result())
    # What follows from the rest: other accuracies come with other files.
    named = {key: pair for key, pair in difference.items() if not key.startswith(("best", "files"))}
    pairs = list((named or difference).items())[:3]
    return ", ".join(f"{key} {first} and {second}" for key, (first, second) in pairs)
