"""Bringing unfinished runs from other machines: the newest whole checkpoint of each, to go on from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from anchorloss.config.identity import identity_hash
from anchorloss.config.settings import NAME
from anchorloss.errors import RunError, UserError
from anchorloss.runs import checkpoint
from anchorloss.runs.claims import claimed
from anchorloss.runs.files import write_once
from anchorloss.runs.folder import CONFIG, RunFolder, read_config, read_progress, run_folder, write_progress
from anchorloss.runs.merge import look_at_target, runs_in
from anchorloss.runs.reading import read_file


@dataclass(frozen=True)
class Unfinished:
    """A run to be continued elsewhere; `step` is (epochs done, steps done in the next)."""

    run: RunFolder
    target: Path
    content: bytes
    step: tuple[int, int]


def plan_unfinished(sources: Iterable[Path], into: Path) -> tuple[list[Unfinished], list[str]]:
    """Find the newest checkpoint of each run under `sources` that has not ended; nothing is written.

    Returns:
        What to copy, and a line for every unfinished run that goes nowhere.

    Raises:
        UserError: names a damaged file, a link, a source without runs, or something in the way in `into`.
    """
    newest: dict[Path, Unfinished] = {}
    skipped: list[str] = []
    for run in (run for source in sources for run in runs_in(source) if run.record is None):
        if run.state == "running":
            skipped.append(f"{run.folder}: in progress")
            continue
        found = _newest(run)
        if found is None:
            skipped.append(f"{run.folder}: no whole checkpoint")
            continue
        target = run_folder(into, _experiment(run), run.name)
        there = look_at_target(into, target)
        if there is not None and (there.record is not None or there.state == "running"):
            skipped.append(f"{run.folder}: {there.state} in {target}")
            continue
        has = None if there is None else _newest(there)
        steps = [has[1] if has else (-1, -1), newest[target].step if target in newest else (-1, -1)]
        if found[1] > max(steps):
            newest[target] = Unfinished(run, target, *found)
        else:
            skipped.append(f"{run.folder}: another checkpoint is as new")
    return list(newest.values()), skipped


def copy_unfinished(found: Unfinished) -> None:
    """Bring a run's checkpoint, config and progress to its target; an older checkpoint there becomes the previous one.

    Raises:
        RunError: if it cannot be written, or another process has the run.
    """
    target = found.target
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{target}: cannot be made: {error.strerror}; name another --into") from error
    with claimed(target):
        config = read_file(found.run.folder / CONFIG)
        if config is not None and not (target / CONFIG).exists():
            write_once(target / CONFIG, config)
        checkpoint.put(target, found.content)
        progress = read_progress(found.run.folder)
        if progress is not None:
            write_progress(target, progress)


def _experiment(run: RunFolder) -> str:
    """The experiment that the run's config names. The config must be that of the run's name."""
    config = read_config(run.folder)
    identity = {key: value for key, value in config.items() if key not in ("experiment", "seeds")}
    named = config.get("experiment")
    experiment = named.get("name") if isinstance(named, dict) else None
    seeds = config.get("seeds")
    if isinstance(seeds, list) and len(seeds) == 1:
        identity["seed"] = seeds[0]
    is_name = isinstance(experiment, str) and NAME.fullmatch(experiment) is not None
    if not is_name or identity_hash(identity) != run.name.rpartition("-")[2]:
        raise UserError(f"{run.folder / CONFIG}: not the config of this run; restore it from a copy")
    return str(experiment)


def _newest(run: RunFolder) -> tuple[bytes, tuple[int, int]] | None:
    """The content of a run's newest checkpoint, and its step."""
    found = checkpoint.newest(run.folder, run.name.rpartition("-")[2])
    if found is None:
        return None
    content, state = found
    trainer = state.get("trainer")
    match state.get("epoch"), trainer.get("step_in_epoch") if isinstance(trainer, dict) else None:
        case int(epoch), int(step) if epoch >= 0 and step >= 0:
            return content, (epoch, step)
    raise UserError(f"{run.folder}: its checkpoint does not say how far it is; move it away")
