"""What is in a run folder, and how it is read back: see "The run folder" in docs/architecture.md."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anchorloss.errors import UserError
from anchorloss.runs import typed_json
from anchorloss.runs.atomic import sha256, write_atomically, write_once
from anchorloss.runs.claim_state import claim_is_live
from anchorloss.runs.paths import experiment_folder
from anchorloss.runs.reading import read_file
from anchorloss.runs.record import (
    HISTORY,
    NAME,
    PREDICTIONS,
    RECORD,
    RUN_NAME,
    WEIGHTS,
    Best,
    Data,
    Failure,
    Provenance,
    Record,
    damaged,
    describe_difference,
    differences,
    same_result,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

__all__ = [
    "CONFIG",
    "HISTORY",
    "PREDICTIONS",
    "PROGRESS",
    "RECORD",
    "RUN_NAME",
    "WEIGHTS",
    "Best",
    "Data",
    "Failure",
    "Predictions",
    "Progress",
    "Provenance",
    "Record",
    "Run",
    "claim_is_live",
    "describe_difference",
    "differences",
    "read_config",
    "read_ended",
    "read_history",
    "read_predictions",
    "read_progress",
    "read_record",
    "read_run",
    "read_runs",
    "same_result",
    "verify_files",
    "write_progress",
    "write_record",
]

CONFIG, PROGRESS = "config.yaml", "progress.json"
HISTORY_COLUMNS = ("epoch", "learning_rate", "train_loss", "train_top1", "test_loss", "top1", "top5")


@dataclass(frozen=True)
class Progress:
    """What an unfinished run last said of itself; `updated` is an ISO time, Top-1 in percent."""

    epoch: int
    epochs: int
    train_loss: float | None
    top1: float | None
    seconds_left: float | None
    updated: str


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
class Run:
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


def read_record(folder: Path) -> Record | None:
    """The record of a run folder, None while it has none. Raises: UserError naming a damaged record."""
    text = read_file(folder / RECORD)
    if text is None:
        return None
    record = Record.from_json(text, folder / RECORD)
    if record.run != folder.name:
        raise damaged(folder / RECORD, f"is the record of {record.run}")
    return record


def verify_files(folder: Path, record: Record) -> None:
    """Compare the run's files with the checksums in its record. Raises: UserError naming one that differs."""
    for name, checksum in record.files.items():
        content = read_file(folder / name)
        if content is None:
            raise UserError(
                f"{folder / name}: missing, though {RECORD} names it; copy the whole run folder again"
            )
        if sha256(content) != checksum:
            raise damaged(folder / name, f"its SHA-256 is not the one in {RECORD}")


def read_history(folder: Path) -> pd.DataFrame:
    """history.csv, one row an epoch. Raises: UserError if it is missing or damaged."""
    import pandas as pd  # half a second that reading records does not need

    path = folder / HISTORY
    try:
        history = pd.read_csv(path)
    except (OSError, ValueError, OverflowError) as error:  # pandas' own errors are ValueErrors
        raise damaged(path, error) from error
    for column in HISTORY_COLUMNS:
        if column not in history:
            raise damaged(path, f"the column {column} is missing")
    for name in history:
        if history[name].dtype.kind not in "if":
            raise damaged(path, f"the column {name!a:.40} is not numeric")
    if list(history["epoch"]) != list(range(1, len(history) + 1)):
        raise damaged(path, "its epochs do not count 1, 2, 3, …")
    return history


def read_predictions(folder: Path) -> Predictions:
    """predictions.npz, read without pickle. Raises: UserError if it is missing or damaged."""
    import numpy as np

    path = folder / PREDICTIONS
    kinds = {"target": "uint8", "predicted": "uint8", "target_rank": "uint8", "confidence": "float16"}
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in kinds}
    except Exception as error:  # a damaged zip file or array header raises nearly any kind of error
        raise damaged(path, error) from error
    for name, kind in kinds.items():
        if arrays[name].dtype != kind or arrays[name].shape != (len(arrays["target"]),):
            raise damaged(path, f"{name} is {arrays[name].dtype} {arrays[name].shape}")
    return Predictions(**arrays)


def write_progress(folder: Path, progress: Progress) -> None:
    """Replace progress.json; what is not finite is left out. Raises: RunError if it cannot be written."""
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in dataclasses.asdict(progress).items()
    }
    write_atomically(folder / PROGRESS, json.dumps(finite).encode())


def read_progress(folder: Path) -> Progress | None:
    """progress.json; None when there is none, or none that can be read: nothing but a display rests on it."""
    try:
        return typed_json.build(Progress, typed_json.parse((folder / PROGRESS).read_bytes()))
    except (OSError, ValueError):
        return None


def read_config(folder: Path) -> dict[str, Any]:
    """config.yaml as nested plain data, nothing interpolated. Raises: UserError if it is damaged."""
    from omegaconf import OmegaConf

    path = folder / CONFIG
    text = read_file(path)
    if text is None:
        return {}
    try:
        content = OmegaConf.to_container(OmegaConf.create(text.decode()), resolve=False)
    except Exception as error:  # YAML's, omegaconf's and Python's own, by the kind of damage
        raise damaged(path, error) from error
    if not isinstance(content, dict) or not content:
        raise damaged(path, "holds no settings")
    return {str(key): value for key, value in content.items()}


def read_runs(results_dir: Path, experiment: str) -> list[Run]:
    """Every run folder of an experiment, by loss, seed and name; none when there is no such experiment.

    Raises: UserError naming a damaged record, or a folder that is no run's.
    """
    if NAME.fullmatch(experiment) is None:
        raise UserError(
            f"experiment={experiment!a}: not the name of an experiment; use letters, digits, _, + and ."
        )
    parent = experiment_folder(results_dir, experiment)
    if not parent.is_dir():
        return []
    runs = [
        read_run(folder) for folder in parent.iterdir() if folder.is_dir() and not folder.name.startswith(".")
    ]
    for run in runs:
        if run.record is not None and run.record.experiment != experiment:
            raise damaged(run.folder / RECORD, f"is a record of the experiment {run.record.experiment}")
    return sorted(runs, key=lambda run: (run.loss, run.seed, run.name))


def read_ended(results_dir: Path, experiment: str) -> list[tuple[Run, Record]]:
    """The runs of an experiment that have ended, finished or failed, as `read_runs` has them.

    Raises: UserError as `read_runs`, and if there is none.
    """
    ended = [(run, run.record) for run in read_runs(results_dir, experiment) if run.record is not None]
    if not ended:
        raise UserError(
            f"experiment={experiment}: no run has ended; run python train.py experiment={experiment}"
        )
    return ended


def read_run(folder: Path) -> Run:
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
    return Run(
        folder, folder.name, parts["loss"], parts["model"], int(parts["seed"]), state, record, progress
    )
