"""What is to be trained: from composed configs to checked runs, where they lie, and which of them are left to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from anchorloss.config.parsing import parse
from anchorloss.config.settings import DATA_SETS, Execution, RunSettings
from anchorloss.errors import UserError
from anchorloss.runs.claims import Claim
from anchorloss.runs.files import write_once
from anchorloss.runs.folder import CONFIG, RECORD, Record, read_config, read_record, run_config, run_folder


def plan(configs: Sequence[DictConfig]) -> tuple[list[RunSettings], Execution]:
    """The runs of several jobs as one plan, seed by seed, so that an early stop leaves complete comparisons.

    Raises:
        UserError: a setting is wrong, a loss refuses its arguments, or the jobs differ in how or where they are to train.
    """
    from anchorloss.training.build import check, distinct_code  # imports torch, which `--help` does not need

    if not configs:
        raise UserError("the sweep names no job; give every swept key at least one value")
    jobs = [parse(config) for config in configs]
    _refuse_swept("experiment.name", [runs[0].experiment for runs, _ in jobs])
    for name in Execution.model_fields:
        _refuse_swept(name, [getattr(execution, name) for _, execution in jobs])
    for run in distinct_code(runs[0] for runs, _ in jobs):
        if run.data.function is None:
            check(run, DATA_SETS[run.data.name]["classes"])
    unique = {run.run: run for runs, _ in jobs for run in runs}
    return sorted(unique.values(), key=lambda run: run.seed), jobs[0][1]


def _refuse_swept(key: str, values: list[Any]) -> None:
    """Refuse a key that all jobs of a sweep share and that has several values."""
    if any(value != values[0] for value in values):
        different = ",".join(dict.fromkeys(map(str, values)))
        raise UserError(f"{key}={different}: cannot be swept; give the command once for each value")


def folder_of(run: RunSettings, execution: Execution) -> Path:
    """Where a run lies."""
    return run_folder(execution.results_dir, run.experiment, run.run)


def read_records(runs: Sequence[RunSettings], execution: Execution) -> dict[str, Record]:
    """The records that the runs have, by the run's name. Raises: UserError if one is damaged."""
    found = {run.run: read_record(folder_of(run, execution)) for run in runs}
    return {name: record for name, record in found.items() if record is not None}


def set_failed_aside(runs: Sequence[RunSettings], execution: Execution) -> None:
    """Keep the records of failed runs under names of their own, so that they are to do again; nothing is overwritten."""
    for run in runs:
        folder = folder_of(run, execution)
        record = read_record(folder)
        if record is None or record.status != "failed" or not (claim := Claim(folder)).acquire():
            continue  # another process sees to it
        try:
            if read_record(folder) != record:
                continue  # another process has seen to it meanwhile
            number = 1
            while (folder / f"failed-{number}.json").exists():
                number += 1
            (folder / RECORD).rename(folder / f"failed-{number}.json")
        finally:
            claim.release()


def make_folder(run: RunSettings, execution: Execution) -> None:
    """Make the run's folder with its config, which says the same whoever writes it.

    Raises:
        UserError: it cannot be made, or is another run's.
    """
    folder = folder_of(run, execution)
    config = run_config(run.experiment, run.identity())
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"results_dir: {folder} cannot be made ({error.strerror}); name another") from None
    try:
        write_once(folder / CONFIG, OmegaConf.to_yaml(OmegaConf.create(config)).encode())
    except FileExistsError:
        if read_config(folder) != config:
            raise UserError(
                f"{folder / CONFIG}: differs from the run it names; move the folder away"
            ) from None
