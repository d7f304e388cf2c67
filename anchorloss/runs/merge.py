"""Bringing run folders from other machines together: equal results merge, contradictions are refused."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

from anchorloss.errors import RunError, UserError
from anchorloss.runs.claims import claimed
from anchorloss.runs.differences import describe_difference, same_result
from anchorloss.runs.files import write_atomically, write_once
from anchorloss.runs.folder import (
    CONFIG,
    HISTORY,
    PREDICTIONS,
    PROGRESS,
    RECORD,
    RUN_NAME,
    RUNS,
    WEIGHTS,
    Record,
    RunFolder,
    check_config,
    read_record,
    read_run,
    run_folder,
    verify_files,
)
from anchorloss.runs.reading import read_file

_FILES = (CONFIG, RECORD, HISTORY, PREDICTIONS, WEIGHTS)


def plan_merge(sources: Iterable[Path], into: Path) -> tuple[list[tuple[RunFolder, Path]], list[str]]:
    """Look at every run under `sources` and decide where it goes; nothing is written.

    A source is a results folder, its `runs`, or the folder of one experiment; `into` is a results folder.

    Returns:
        Which run goes to which folder, and one line for every run that goes nowhere.

    Raises:
        UserError: names a damaged file, a link, a source without runs, a run that is in progress in `into`, something
            that is in the way there, or all runs of which there are two different results.
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
        check_config(run.folder, run.record)
        target = run_folder(into, run.record.experiment, run.name)
        other = copies.get(target) or look_at_target(into, target)
        if other is not None and other.state == "running":
            raise UserError(f"{target}: in progress, though {run.folder} has its result; stop it first")
        if other is None or other.record is None:
            check_config(target, run.record)  # nothing to compare with where there is none
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
    """Bring one ended run to `target`: a new folder appears whole; an unfinished one gets its record last.

    Raises:
        RunError: if it cannot be written or another process has the run.
        UserError: if the copy differs.
    """
    assert run.record is not None
    copy = target.with_name(f".merging-{secrets.token_hex(6)}")
    try:
        copy.mkdir(parents=True)
        for name, content in _contents(run, run.record).items():
            write_once(copy / name, content)
        if Record.from_json((copy / RECORD).read_bytes(), copy / RECORD) != run.record:
            raise RunError(f"{run.folder / RECORD}: changed while it was copied; try again")
        verify_files(copy, run.record)
        if target.exists():
            with claimed(target):
                _fill(target, copy)
        else:
            copy.rename(target)
    except OSError as error:
        raise RunError(f"{target}: cannot be copied: {error.strerror}; see to it and merge again") from error
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def look_at_target(into: Path, target: Path) -> RunFolder | None:
    """The run that is at `target`, in the results folder `into`; None if there is none.

    Raises:
        UserError: if it is damaged, or a link or a file is in the way.
    """
    for place in (into, *reversed([folder for folder in target.parents if into in folder.parents]), target):
        if (place != into and place.is_symlink()) or (place.exists() and not place.is_dir()):
            raise UserError(f"{place}: in the way, as it is no folder; move it away, or name another --into")
    return read_run(target) if target.is_dir() else None


def runs_in(source: Path) -> list[RunFolder]:
    """The runs of a results folder, of its `runs`, or of one experiment.

    Raises:
        UserError: if there is none, if one is damaged, or if a folder is a link or cannot be read.
    """
    remedy = "name a results folder, its runs, or one experiment's folder"
    if not source.is_dir():
        raise UserError(f"{source}: not a folder; {remedy}")
    inner = source / RUNS if (source / RUNS).is_dir() else source
    inside = [_folders(folder) for folder in [inner, *_folders(inner)]]
    folders = [run for runs in inside if any(RUN_NAME.fullmatch(run.name) for run in runs) for run in runs]
    if not folders:
        raise UserError(f"{source}: holds no runs; {remedy}")
    for folder in folders:
        for path in (folder, *(folder / name for name in _FILES)):
            if path.is_symlink():
                raise UserError(f"{path}: a link; only what lies in a results folder itself is copied")
    return [read_run(folder) for folder in folders]


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error.strerror}; make it readable") from None


def _differences(a: Record, b: Record) -> str:
    difference = describe_difference(a.result(), b.result())
    # What follows from the rest: other accuracies come with other files.
    named = {key: pair for key, pair in difference.items() if not key.startswith(("best", "files"))}
    pairs = list((named or difference).items())[:3]
    return ", ".join(f"{key} {first} and {second}" for key, (first, second) in pairs)


def _contents(run: RunFolder, record: Record) -> dict[str, bytes]:
    """The files that belong to an ended run, by name: those of its record, and the records of earlier failures."""
    earlier = [
        path.name
        for path in sorted(run.folder.iterdir())
        if path.match("failed-*.json") and _is_record_of(run, path)
    ]
    contents = {name: read_file(run.folder / name) for name in (CONFIG, *earlier, *record.files, RECORD)}
    return {name: content for name, content in contents.items() if content is not None}


def _is_record_of(run: RunFolder, path: Path) -> bool:
    try:
        content = None if path.is_symlink() else read_file(path, 1 << 20)
        return content is not None and Record.from_json(content, path).run == run.name
    except UserError:
        return False


def _fill(target: Path, copy: Path) -> None:
    if read_record(target) is not None:
        raise RunError(f"{target}: another process has just finished this run; merge again")
    for path in sorted(copy.iterdir()):
        if path.name not in (CONFIG, RECORD):
            write_atomically(target / path.name, path.read_bytes())
    if not (target / CONFIG).exists() and (copy / CONFIG).exists():
        write_once(target / CONFIG, (copy / CONFIG).read_bytes())
    write_once(target / RECORD, (copy / RECORD).read_bytes())
    for leftover in [*target.glob("checkpoint*"), target / PROGRESS]:
        leftover.unlink(missing_ok=True)
