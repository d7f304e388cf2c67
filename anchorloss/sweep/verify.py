"""Is a record right? Its run trained again from its own folder, or its kept weights evaluated again, and what differs."""

from __future__ import annotations

import csv
import re
import tempfile
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch

from anchorloss.config.parsing import recorded_run
from anchorloss.config.settings import Execution, LoggerSettings, RunSettings
from anchorloss.data.dataset import Dataset, load_dataset
from anchorloss.device import describe, processor_kind, resolve_device
from anchorloss.errors import UserError
from anchorloss.runs import provenance, weights
from anchorloss.runs.differences import describe_difference
from anchorloss.runs.files import read_file
from anchorloss.runs.folder import (
    HISTORY,
    WEIGHTS,
    Record,
    read_predictions,
    read_record,
    read_runs,
    verify_files,
)
from anchorloss.sweep.executor import execute, prepare_torch
from anchorloss.sweep.plan import folder_of
from anchorloss.tracking import Logger
from anchorloss.training.build import build_network
from anchorloss.training.device_data import DeviceData
from anchorloss.training.evaluation import Evaluation, evaluate
from anchorloss.training.run import train

# Rounding moves an image across a decision boundary now and then; evaluating in float32 instead of bfloat16 changes
# 0.85 % of the predictions of a ResNet-20. More than this share is not rounding.
LARGEST_ROUNDING_SHARE = 0.05
Differences = dict[str, tuple[str, str]]


def rerun(
    folder: Path, data_root: str, *, first_epoch: bool, device: str = "auto", into: Path | None = None
) -> tuple[Record, Differences, Differences]:
    """Train the run of a folder again, with the record's number of threads, and compare.

    Whole: the record and the bytes of history and predictions; the new run is kept in the results folder `into` if one
    is named. `first_epoch`: the first row of the history.

    Returns:
        The record; each value that differs, as recorded and as it came out now; and in the same way what may make them
        differ: commit, device, versions.

    Raises:
        UserError: the folder has no finished run that this code can name, or the data are missing.
        RunError: a file cannot be written.
    """
    record, settings, execution = recorded(folder, data_root, device)
    place = resolve_device(device)
    prepare_torch(execution, place)
    with tempfile.TemporaryDirectory() as temporary:
        if first_epoch:
            again = Path(temporary)
            data = DeviceData.of(load_dataset(settings.data), place)
            with closing(train(settings, again, data, execution, Logger())) as steps:
                while not (again / HISTORY).exists() and next(steps, None) is not None:
                    pass
            texts = [(each / HISTORY).read_text().splitlines() for each in (folder, again)]
            differences = describe_difference(*(next(csv.DictReader(text)) for text in texts))
        else:
            execution = execution.model_copy(update={"results_dir": into or Path(temporary)})
            execute([settings], execution)
            new = cast(Record, read_record(folder_of(settings, execution)))
            differences = describe_difference(record.result(), new.result())
    commit, dirty = provenance.commit()
    versions = provenance.versions()
    now = {"commit": commit, "dirty": dirty, "device": describe(place), "versions": versions}
    then = {key: getattr(record.provenance, key) for key in now}
    return record, differences, describe_difference(then, now)


def recorded(folder: Path, data_root: str, device: str) -> tuple[Record, RunSettings, Execution]:
    """The record of a folder whose files are verified, its run as settings, and how to carry it out as it was made.

    Raises:
        UserError: there is no record of a finished run, a file is not the recorded one, or its settings name another run.
    """
    record = read_record(folder)
    if record is None or record.status != "finished":
        raise UserError(f"{folder}: has no record of a finished run; name a folder with a record.json")
    verify_files(folder, record)
    settings = recorded_run(record.experiment, record.identity)
    settings = settings.model_copy(update={"data": settings.data.model_copy(update={"root": data_root})})
    if settings.run != record.run:
        raise UserError(
            f"{folder}: its settings name the run {settings.run} here; check out its commit {record.provenance.commit}"
        )
    # Records made before November 2026 have it in the device's description alone.
    told = re.search(r"\((\d+) threads?\b", record.provenance.device)
    how = Execution(
        device=device,
        results_dir=Path("results"),
        logger=LoggerSettings(name="none"),
        concurrent=1,
        deterministic=False,
        checkpoint_seconds=60,
        minutes=0,
        retry_failed=False,
        dry_run=False,
        threads=record.provenance.threads or (int(told[1]) if told else 0),
        compile=record.provenance.compile,
        keep_weights=WEIGHTS in record.files,
    )
    return record, settings, how


def with_weights(results_dir: Path, experiment: str) -> list[Path]:
    """The folders of an experiment's finished runs that kept their weights. Raises: UserError if there is none."""
    runs = read_runs(results_dir, experiment)
    kept = [run.folder for run in runs if run.record is not None and WEIGHTS in run.record.files]
    if not kept:
        raise UserError(
            f"experiment={experiment}: none of its {len(runs)} runs kept its weights, so there is nothing to evaluate; "
            "finished runs are not trained again where they lie, so train in another folder: python train.py "
            f"experiment={experiment} keep_weights=true results_dir=outputs"
        )
    return kept


class Reevaluation(NamedTuple):
    """What a run's weights give here: how many predictions are others, where else the record was made, what is wrong."""

    record: Record
    now: Evaluation
    different: int
    elsewhere: str | None
    problem: str | None


def reevaluate(folders: Iterable[Path], data_root: str, device: str = "auto") -> list[Reevaluation]:
    """Evaluate the weights of recorded runs on the images that their records name, with their number of threads.

    Raises:
        UserError: a folder has no finished run with weights, one of its files is not the recorded one, the weights are
            of another network, or the data set is missing or another one.
    """
    found = [(folder, *recorded(folder, data_root, device)) for folder in folders]
    for folder, record, *_ in found:
        if WEIGHTS not in record.files:
            raise UserError(f"{folder}: its run did not keep its weights; name a folder with {WEIGHTS}")
    place = resolve_device(device)
    sets = {repr(settings.data): settings.data for _, _, settings, _ in found}
    loaded = {key: load_dataset(data) for key, data in sets.items()}
    return [
        _reevaluate(folder, record, settings, execution, loaded[repr(settings.data)], place)
        for folder, record, settings, execution in found
    ]


def _reevaluate(
    folder: Path,
    record: Record,
    settings: RunSettings,
    execution: Execution,
    dataset: Dataset,
    device: torch.device,
) -> Reevaluation:
    if dataset.checksum != record.data.checksum:
        raise UserError(
            f"data.root={settings.data.root}: its checksum is {dataset.checksum}, that of the record in {folder} is "
            f"{record.data.checksum}; name the data set that the run was evaluated on"
        )
    prepare_torch(execution, device)
    network = build_network(settings.model, len(dataset.class_names))
    weights.load_into(network, read_file(folder / WEIGHTS) or b"", folder / WEIGHTS)
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = DeviceData.of(dataset, device)
    now, then = (
        evaluate(network, settings, images),
        read_predictions(folder),
    )
    made, version = (record.provenance, record.provenance.versions.get("torch", "unknown"))
    kinds = {processor_kind(made.device), processor_kind(describe(device))}
    is_same = version == provenance.versions()["torch"] and len(kinds) == 1
    different = int(np.sum(then.predicted != now.predicted))
    ranks = int(np.sum(then.target_rank != now.target_rank))
    problem = None
    if not np.array_equal(then.target, now.target):
        different, problem = (len(now.target), "the recorded labels are not those of the data set")
    elif is_same and device.type == "cpu" and (different or ranks):
        problem = f"{different:,} predictions and {ranks:,} ranks of the target differ on the same processor"
    elif different > LARGEST_ROUNDING_SHARE * len(then.target):
        problem = f"{different:,} predictions differ, more than rounding explains"
    return Reevaluation(
        record, now, different, None if is_same else f"{made.device}, torch {version}", problem
    )
