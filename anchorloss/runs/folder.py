"""What is in a run folder, and how it is read back: see "The run folder" in docs/architecture.md."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel

from anchorloss.config.settings import NAME
from anchorloss.config.yaml_files import LOADER, check_yaml
from anchorloss.errors import UserError
from anchorloss.runs.claims import claim_is_live
from anchorloss.runs.files import (
    LARGEST,
    LARGEST_TEXT,
    damaged,
    read_file,
    sha256,
    write_atomically,
    write_once,
)
from anchorloss.runs.record import HISTORY, PREDICTIONS, RECORD, RUN_NAME, Record
from anchorloss.runs.record import WEIGHTS as WEIGHTS

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

CONFIG, PROGRESS, RUNS = "config.yaml", "progress.json", "runs"
HISTORY_COLUMNS = ("epoch", "learning_rate", "train_loss", "train_top1", "test_loss", "top1", "top5")
_KINDS = {"target": "uint8", "predicted": "uint8", "target_rank": "uint8", "confidence": "float16"}
# Bytes of history.csv, and of all arrays of predictions.npz; the test set of CIFAR needs 50,000.
_LARGEST_UNPACKED = 256 << 20


class Progress(BaseModel):
    """What an unfinished run last said of itself: epochs done and planned, newest Top-1 in percent, seconds."""

    epoch: int
    epochs: int
    top1: float | None
    seconds_left: float | None


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

    def to_bytes(self) -> bytes:
        """The file predictions.npz; equal predictions give equal bytes."""
        import numpy as np

        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            target=self.target,
            predicted=self.predicted,
            target_rank=self.target_rank,
            confidence=self.confidence,
        )
        return buffer.getvalue()


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


def run_folder(results_dir: Path, experiment: str, run: str) -> Path:
    """Where a run lies in a results folder: `<results_dir>/runs/<experiment>/<run>/`."""
    return results_dir / RUNS / experiment / run


def run_config(experiment: str, identity: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's config.yaml says: its identity, as a config that trains it and no other seed."""
    settings = {key: value for key, value in identity.items() if key != "seed"}
    return {"experiment": {"name": experiment}, **settings, "seeds": [identity["seed"]]}


def write_record(folder: Path, record: Record) -> None:
    """Write record.json, which ends the run.

    Raises: FileExistsError if the run has a record; UserError if `record` could not be read back; RunError if
    it cannot be written.
    """
    text = record.to_json().encode()
    Record.from_json(text, folder / RECORD)
    write_once(folder / RECORD, text)


def read_record(folder: Path) -> Record | None:
    """The record of a run folder, None while it has none.

    It is held against config, history and predictions: their checksums, the last row, and Top-1 and Top-5 counted anew.

    Raises:
        UserError: names a file that is damaged or missing, or in what the record contradicts it.
    """
    path = folder / RECORD
    text = read_file(path, LARGEST_TEXT)
    if text is None:
        return None
    record = Record.from_json(text, path)
    if record.run != folder.name:
        raise damaged(path, f"is the record of {record.run}")
    if read_config(folder) not in ({}, run_config(record.experiment, record.identity)):
        raise damaged(folder / CONFIG, f"is not what {RECORD} says")
    verify_files(folder, record, record.files.keys() - {WEIGHTS})
    if record.status == "finished":
        _compare(folder, record)
    return record


def verify_files(folder: Path, record: Record, names: Iterable[str] | None = None) -> None:
    """Compare the run's files, or those of `names`, with the checksums in its record.

    Raises:
        UserError: names one that differs or is missing.
    """
    for name in sorted(record.files) if names is None else sorted(names):
        content = _required(folder / name)
        if sha256(content) != record.files[name]:
            raise damaged(folder / name, f"its SHA-256 is not the one in {RECORD}")


def _compare(folder: Path, record: Record) -> None:
    """Hold a finished run's record against the last row of its history, and against its predictions."""
    *_, last = csv.DictReader(io.StringIO(_required(folder / HISTORY).decode()))
    rank = read_predictions(folder).target_rank
    if len(rank) != record.data.evaluation_images:
        raise damaged(folder / PREDICTIONS, f"has {len(rank):,} of {record.data.evaluation_images:,} images")
    counted = {
        key: 100 * (int((rank < first).sum()) / len(rank)) for key, first in (("top1", 1), ("top5", 5))
    }
    for key in ("test_loss", "top1", "top5"):
        told = getattr(record, key)
        if float(last[key]) != told or counted.get(key, told) != told:
            raise damaged(
                folder / RECORD, f"{key} is {told}, in the files beside it {counted.get(key, last[key])}"
            )


def read_history(folder: Path) -> pd.DataFrame:
    """history.csv, one row an epoch; NaN where an epoch was not evaluated.

    Raises:
        UserError: if it is missing, or not a table of numbers with `HISTORY_COLUMNS` whose epochs count 1, 2, 3, …
    """
    import pandas as pd  # half a second that reading records does not need

    path = folder / HISTORY
    try:
        columns, *rows = csv.reader(io.StringIO(_required(path, _LARGEST_UNPACKED).decode()))
        history = pd.DataFrame([[float(cell or "nan") for cell in row] for row in rows], columns=columns)
        if missing := [column for column in HISTORY_COLUMNS if column not in columns]:
            raise ValueError(f"the column {missing[0]} is missing")
        if list(history["epoch"]) != list(range(1, len(history) + 1)):
            raise ValueError("its epochs do not count 1, 2, 3, …")
    except (ValueError, csv.Error) as error:
        raise damaged(path, f"is not a history: {error}") from None
    return history.astype({"epoch": int})


def read_predictions(folder: Path) -> Predictions:
    """predictions.npz, read without pickle.

    Raises:
        UserError: if it is missing, or its arrays are not of their kinds and of one length.
    """
    import numpy as np

    path = folder / PREDICTIONS
    content = io.BytesIO(_required(path))
    try:
        with zipfile.ZipFile(content) as members:
            if sum(member.file_size for member in members.infolist()) > _LARGEST_UNPACKED:
                raise ValueError("its arrays are larger than those of a run")
        with np.load(content, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in _KINDS}
        length = len(arrays["target"])
        for name, kind in _KINDS.items():
            if arrays[name].dtype != kind or arrays[name].shape != (length,) or not length:
                raise ValueError(
                    f"{name} is {arrays[name].dtype} {arrays[name].shape}, not {kind} ({length},)"
                )
    except Exception as error:  # a damaged zip file or array header raises nearly any kind of error
        raise damaged(path, error) from None
    return Predictions(**arrays)


def write_progress(folder: Path, progress: Progress) -> None:
    """Replace progress.json; what is not finite becomes null. Raises: RunError if it cannot be written."""
    write_atomically(folder / PROGRESS, progress.model_dump_json().encode())


def read_progress(folder: Path) -> Progress | None:
    """progress.json; None when there is none, or none that can be read: nothing but a display rests on it."""
    try:
        content = read_file(folder / PROGRESS, LARGEST_TEXT)
        return None if content is None else Progress.model_validate_json(content)
    except (UserError, ValueError):
        return None


def remove_leftovers(folder: Path) -> None:
    """Remove checkpoints and progress of a run that has its record, and what killed processes left half-written."""
    for path in folder.iterdir():
        # Another process may only now be planning the sweep, and writing the folder's config.
        is_torn = path.suffix == ".writing" and not path.name.startswith(f".{CONFIG}.")
        if is_torn or path.match("checkpoint*.pt") or path.name == PROGRESS:
            path.unlink(missing_ok=True)


def read_config(folder: Path) -> dict[str, Any]:
    """config.yaml as nested plain data, empty if it is not written yet. Raises: UserError if it is damaged."""
    path = folder / CONFIG
    text = read_file(path, LARGEST_TEXT)
    if text is None:
        return {}
    try:
        check_yaml(text.decode())
        content = yaml.load(text, LOADER)
    except (yaml.YAMLError, ValueError) as error:
        raise damaged(path, error) from None
    if not isinstance(content, dict):
        raise damaged(path, "holds no settings")
    return {str(key): value for key, value in content.items()}


def read_runs(results_dir: Path, experiment: str) -> list[RunFolder]:
    """The runs of an experiment, by loss, seed and name.

    Raises:
        UserError: names a damaged record, or a folder that is no run's.
    """
    if NAME.fullmatch(experiment) is None:
        raise UserError(
            f"experiment={experiment!a}: not the name of an experiment; use letters, digits, _, + and ."
        )
    runs = [read_run(folder) for folder in subfolders(results_dir / RUNS / experiment)]
    for run in runs:
        if run.record is not None and run.record.experiment != experiment:
            raise damaged(run.folder / RECORD, f"is a record of the experiment {run.record.experiment}")
    return sorted(runs, key=lambda run: (run.loss, run.seed, run.name))


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, none of them hidden; empty where it is none itself. Raises: OSError."""
    inside = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in inside if not path.name.startswith(".") and path.is_dir())


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
        state: str = record.status
    elif live:
        state = "running"
    else:
        state = "interrupted" if any(folder.glob("checkpoint*.pt")) else "waiting"
    progress = None if record is not None else read_progress(folder)
    return RunFolder(
        folder, folder.name, parts["loss"], parts["model"], int(parts["seed"]), state, record, progress
    )


def _required(path: Path, largest: int = LARGEST) -> bytes:
    content = read_file(path, largest)
    if content is None:
        raise damaged(path, "is missing")
    return content
