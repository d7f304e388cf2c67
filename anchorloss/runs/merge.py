"""Bringing run folders from other machines together: equal results merge, contradictions are refused."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from anchorloss.errors import RunError, UserError
from anchorloss.runs.atomic import write_atomically, write_once
from anchorloss.runs.claims import Claim
from anchorloss.runs.paths import run_folder, runs_folder
from anchorloss.runs.store import (
    CONFIG,
    PROGRESS,
    RECORD,
    RUN_NAME,
    WEIGHTS,
    Record,
    Run,
    describe_difference,
    read_record,
    read_run,
    same_result,
    verify_files,
)

# What belongs to the machine on which a run is unfinished; hidden files are what a killed writer leaves.
_LEFT_BEHIND = ("checkpoint*", "claim.lock*", PROGRESS, ".*")


@dataclass(frozen=True)
class Merge:
    """What a merge will do: which run goes to which folder, and one line for every run that goes nowhere."""

    copies: tuple[tuple[Run, Path], ...]
    skipped: tuple[str, ...]


def plan_merge(sources: Iterable[Path], into: Path) -> Merge:
    """Look at every run under `sources` and decide where it goes; nothing is written.

    A source is a results folder, its `runs`, or the folder of one experiment; `into` is a results folder.

    Raises: UserError naming a damaged file, a source without runs, a run that is in progress in `into`, or all
    runs of which there are two different results.
    """
    copies: dict[Path, Run] = {}
    skipped: list[str] = []
    conflicts: list[str] = []
    runs = [run for source in sources for run in _runs_of(source)]
    # Of equal results the first one is copied: one with its weights, if there is any.
    for run in sorted(runs, key=lambda run: run.record is not None and WEIGHTS not in run.record.files):
        if run.record is None:
            skipped.append(f"{run.folder}: {run.state}, not ended")
            continue
        _check(run, run.record)
        target = run_folder(into, run.record.experiment, run.name)
        if target in copies:
            other = copies[target]
        else:
            there = read_run(target) if target.is_dir() else None
            if there is None or there.record is None:
                if there is not None and there.state == "running":
                    raise UserError(
                        f"{target}: in progress, though {run.folder} has its result; stop it first"
                    )
                copies[target] = run
                continue
            other = there
        assert other.record is not None
        if same_result(other.record, run.record):
            skipped.append(f"{run.folder}: the same result as {other.folder}")
        else:
            conflicts.append(f"{other.folder} and {run.folder} ({_differences(other.record, run.record)})")
    if conflicts:
        raise UserError(
            f"two results for one run, so nothing was merged: {'; '.join(conflicts)}; move one of each away"
        )
    return Merge(tuple((run, target) for target, run in copies.items()), tuple(skipped))


def copy_run(run: Run, target: Path) -> None:
    """Bring one ended run to `target`: a new folder appears whole; an unfinished one gets its record last.

    Raises: RunError if it cannot be written or another process has the run; UserError if the copy differs.
    """
    with _copied_beside(run, target) as copy:
        if not target.exists():
            with _one_line(target):
                copy.rename(target)
            return
        claim = Claim(target)
        if not claim.acquire():
            raise RunError(f"{target}: another process works on this run; try again when it is done")
        try:
            _fill(target, copy)
        finally:
            claim.release()


def _runs_of(source: Path) -> list[Run]:
    if not source.is_dir():
        raise UserError(
            f"{source}: not a folder; name a results folder, its runs, or one experiment's folder"
        )
    inner = runs_folder(source) if runs_folder(source).is_dir() else source
    experiments = [folder for folder in [inner, *_folders(inner)] if any(map(_is_run, _folders(folder)))]
    runs = [read_run(folder) for experiment in experiments for folder in _folders(experiment)]
    if not runs:
        raise UserError(
            f"{source}: holds no runs; name a results folder, its runs, or one experiment's folder"
        )
    return runs


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _is_run(folder: Path) -> bool:
    return RUN_NAME.fullmatch(folder.name) is not None


def _check(run: Run, record: Record) -> None:
    verify_files(run.folder, record)
    _ = run.settings


def _differences(a: Record, b: Record) -> str:
    contents = [dataclasses.asdict(record) for record in (a, b)]
    for content in contents:
        del content["provenance"]
    difference = describe_difference(*contents)
    return ", ".join(f"{key} {first} and {second}" for key, (first, second) in list(difference.items())[:3])


@contextlib.contextmanager
def _copied_beside(run: Run, target: Path) -> Iterator[Path]:
    """A verified copy of the run in a hidden folder next to `target`, gone at the end unless it was renamed."""
    copy = target.with_name(f".merging-{secrets.token_hex(6)}")
    try:
        with _one_line(target):
            copy.mkdir(parents=True)
        for path in sorted(run.folder.rglob("*")):
            place = path.relative_to(run.folder)
            if (
                path.is_symlink()
                or not path.is_file()
                or any(fnmatch(place.parts[0], p) for p in _LEFT_BEHIND)
            ):
                continue
            with _one_line(path):
                (copy / place).parent.mkdir(parents=True, exist_ok=True)
                content = path.read_bytes()
            write_once(copy / place, content)
        assert run.record is not None
        if Record.from_json((copy / RECORD).read_bytes(), copy / RECORD) != run.record:
            raise RunError(f"{run.folder / RECORD}: changed while it was copied; try again")
        verify_files(copy, run.record)
        yield copy
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _fill(target: Path, copy: Path) -> None:
    if read_record(target) is not None:
        raise RunError(f"{target}: another process has just finished this run; merge again")
    for path in sorted(path for path in copy.rglob("*") if path.is_file()):
        place = path.relative_to(copy)
        if place.name in (CONFIG, RECORD):
            continue
        with _one_line(target):
            (target / place).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target / place, path.read_bytes())
    if not (target / CONFIG).exists() and (copy / CONFIG).exists():
        write_once(target / CONFIG, (copy / CONFIG).read_bytes())
    write_once(target / RECORD, (copy / RECORD).read_bytes())
    for leftover in [*target.glob("checkpoint*"), target / PROGRESS]:
        leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def _one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"{path}: cannot be copied: {error.strerror}; see to it and merge again") from error
