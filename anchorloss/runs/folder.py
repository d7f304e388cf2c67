"""What is in a run folder, and how it is read back: see "The run folder" in docs/architecture.md."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator

from anchorloss.config.validation import refuse_aliases
from anchorloss.errors import UserError
from anchorloss.runs.claims import claim_is_live
from anchorloss.runs.contents import parse_history, read_record, read_verified, unpack_predictions
from anchorloss.runs.differences import describe_difference
from anchorloss.runs.files import write_atomically, write_once
from anchorloss.runs.reading import damaged, parse_json, read_file
from anchorloss.runs.record import HISTORY, NAME, PREDICTIONS, RECORD, RUN_NAME, Record, StrictModel, Text
from anchorloss.runs.record import WEIGHTS as WEIGHTS

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

CONFIG, PROGRESS, RUNS = "config.yaml", "progress.json", "runs"


def run_folder(results_dir: Path, experiment: str, run: str) -> Path:
    """Where a run lies in a results folder: `<results_dir>/runs/<experiment>/<run>/`."""
    return results_dir / RUNS / experiment / run


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Measured = Annotated[float | None, BeforeValidator(_finite_or_none)]


class Progress(StrictModel):
    """What an unfinished run last said of itself; `updated` is an ISO time, Top-1 in percent."""

    epoch: int
    epochs: int
    train_loss: Measured
    top1: Measured
    seconds_left: Measured
    updated: Text


@dataclass(frozen=True)
class Predictions:
    """The last epoch's answers, one entry an evaluation image, in the set's order.

    `target`, `predicted`, `target_rank` (0: the target had the highest score): uint8 (N,).
    `confidence`, the score of the predicted class: float16 (N,).
    """

    target: np.ndarray
    predicted: np.ndarray
    target_rank: np.ndarray
    confidence: np.ndarray


@dataclass(frozen=True)
class RunFolder:
    """A run folder as it stands: `state` is finished, failed, running, interrupted or waiting."""

    folder: Path
    name: str
    loss: str
    model: str
    seed: int
    state: str
    record: Record | None
    progress: Progress | None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """config.yaml, nested; empty when it is not written yet. Raises: UserError if it is damaged."""
        return read_config(self.folder)


def write_record(folder: Path, record: Record) -> None:
    """Write record.json, which ends the run.

    Raises: FileExistsError if the run has a record; UserError if `record` could not be read back; RunError if
    it cannot be written.
    """
    text = record.to_json()
    Record.from_json(text, folder / RECORD)
    write_once(folder / RECORD, text.encode())


def verify_files(folder: Path, record: Record) -> None:
    """Compare the run's files with the checksums in its record.

    Raises:
        UserError: names one that differs or is missing.
    """
    for name in record.files:
        read_verified(folder, record, name)


def read_history(folder: Path) -> pd.DataFrame:
    """history.csv, one row an epoch.

    Raises:
        UserError: if it is missing or damaged.
    """
    import pandas as pd  # half a second that reading records does not need

    path = folder / HISTORY
    names, table = parse_history(path, _required(path))
    return pd.DataFrame(table, columns=names).astype({"epoch": int})


def read_predictions(folder: Path) -> Predictions:
    """predictions.npz, read without pickle.

    Raises:
        UserError: if it is missing or damaged.
    """
    path = folder / PREDICTIONS
    return Predictions(**unpack_predictions(path, _required(path)))


def write_progress(folder: Path, progress: Progress) -> None:
    """Replace progress.json; what is not finite is left out. Raises: RunError if it cannot be written."""
    write_atomically(folder / PROGRESS, json.dumps(progress.model_dump()).encode())


def read_progress(folder: Path) -> Progress | None:
    """progress.json; None when there is none, or none that can be read: nothing but a display rests on it."""
    try:
        content = read_file(folder / PROGRESS)
        return None if content is None else Progress.model_validate(parse_json(content))
    except (UserError, ValueError):
        return None


def read_config(folder: Path) -> dict[str, Any]:
    """config.yaml as nested plain data, nothing interpolated. Raises: UserError if it is damaged."""
    from omegaconf import OmegaConf

    path = folder / CONFIG
    text = read_file(path)
    if text is None:
        return {}
    try:
        refuse_aliases(text)
        content = OmegaConf.to_container(OmegaConf.create(text.decode()), resolve=False)
    except Exception as error:  # YAML's, omegaconf's and Python's own, by the kind of damage
        raise damaged(path, error) from error
    if not isinstance(content, dict) or not content:
        raise damaged(path, "holds no settings")
    return {str(key): value for key, value in content.items()}


def check_config(folder: Path, record: Record) -> None:
    """Compare the run's config.yaml, if it has one, with its record.

    Raises:
        UserError: if it is damaged or names other settings than the record.
    """
    found = read_config(folder)
    recorded = {key: value for key, value in record.identity.items() if key != "seed"}
    recorded |= {"experiment": {"name": record.experiment}, "seeds": [record.seed]}
    if found and (difference := describe_difference(recorded, found)):
        key, (theirs, ours) = next(iter(difference.items()))
        raise damaged(folder / CONFIG, f"{key} is {ours:.60}, and {theirs:.60} in {RECORD}")


def read_runs(results_dir: Path, experiment: str) -> list[RunFolder]:
    """The runs of an experiment, by loss, seed and name.

    Raises:
        UserError: names a damaged record, or a folder that is no run's.
    """
    if NAME.fullmatch(experiment) is None:
        raise UserError(
            f"experiment={experiment!a}: not the name of an experiment; use letters, digits, _, + and ."
        )
    parent = results_dir / RUNS / experiment
    if not parent.is_dir():
        return []
    runs = [
        read_run(folder) for folder in parent.iterdir() if folder.is_dir() and not folder.name.startswith(".")
    ]
    for run in runs:
        if run.record is not None and run.record.experiment != experiment:
            raise damaged(run.folder / RECORD, f"is a record of the experiment {run.record.experiment}")
    return sorted(runs, key=lambda run: (run.loss, run.seed, run.name))


def read_ended(results_dir: Path, experiment: str) -> list[tuple[RunFolder, Record]]:
    """The runs of an experiment that finished or failed.

    Raises:
        UserError: as `read_runs`, and if there is none.
    """
    ended = [(run, run.record) for run in read_runs(results_dir, experiment) if run.record is not None]
    if not ended:
        raise UserError(
            f"experiment={experiment}: no run has ended; run python train.py experiment={experiment}"
        )
    return ended


def read_run(folder: Path) -> RunFolder:
    """One run folder as it stands. Raises: UserError if its record is damaged or it is not named as a run."""
    parts = RUN_NAME.fullmatch(folder.name)
    if parts is None:
        raise UserError(
            f"{folder}: not the folder of a run (<loss>-<model>-seed<k>-<hash>); move it elsewhere"
        )
    # The claim first: a run that ends between the two questions then has its record, and is seen as ended.
    live = claim_is_live(folder)
    record = read_record(folder)
    if record is not None:
        state = record.status
    elif live:
        state = "running"
    elif any(folder.glob("checkpoint*.pt")):
        state = "interrupted"
    else:
        state = "waiting"
    progress = None if record is not None else read_progress(folder)
    return RunFolder(
        folder, folder.name, parts["loss"], parts["model"], int(parts["seed"]), state, record, progress
    )


def _required(path: Path) -> bytes:
    content = read_file(path)
    if content is None:
        raise damaged(path, "is missing")
    return content
