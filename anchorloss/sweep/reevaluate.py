"""Recorded weights evaluated again: do they give the record's Top-1, Top-5 and predictions?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from anchorloss.config.identity import RunSettings
from anchorloss.config.settings import Execution, ModelSettings
from anchorloss.data.dataset import Dataset, load_dataset
from anchorloss.device import describe, processor_kind, resolve_device
from anchorloss.errors import UserError
from anchorloss.runs import provenance, weights
from anchorloss.runs.files import read_file
from anchorloss.runs.folder import (
    RECORD,
    WEIGHTS,
    Record,
    read_predictions,
    read_record,
    read_runs,
    verify_files,
)
from anchorloss.sweep.executor import prepare_torch
from anchorloss.sweep.rerun import settings_of
from anchorloss.sweep.side_by_side import SideBySide
from anchorloss.training.build import build_loss, build_network
from anchorloss.training.device_data import DeviceData
from anchorloss.training.evaluation import Evaluation, evaluate

# Rounding moves an image across a decision boundary now and then; evaluating in float32 instead of bfloat16 changes
# 0.85 % of the predictions of a ResNet-20. More than this share is not rounding.
LARGEST_ROUNDING_SHARE = 0.05


@dataclass(frozen=True)
class Reevaluation:
    """What a run's weights give here, beside its record.

    Attributes:
        record: the run's record.
        now: the evaluation made here.
        different: the number of images whose predicted class is another than the recorded one.
        elsewhere: the recorded processor and version of torch, if they are not those of here.
        problems: why the record and its weights do not agree; empty if they do.
    """

    record: Record
    now: Evaluation
    different: int
    elsewhere: str | None
    problems: tuple[str, ...]


def with_weights(results_dir: Path, experiment: str) -> list[Path]:
    """The folders of an experiment's finished runs that kept their weights.

    Raises:
        UserError: if there is none.
    """
    runs = read_runs(results_dir, experiment)
    kept = [run.folder for run in runs if run.record is not None and WEIGHTS in run.record.files]
    if not kept:
        raise UserError(
            f"experiment={experiment}: none of its {len(runs)} runs kept its weights, so there is nothing to evaluate; "
            f"train with python train.py experiment={experiment} keep_weights=true"
        )
    return kept


def reevaluate(folders: Iterable[Path], data_root: str, device: str = "auto") -> list[Reevaluation]:
    """Evaluate the weights of recorded runs on the images that their records name.

    Every file is verified before the first evaluation. On a CPU each run computes with its record's number of threads,
    and runs share the cores.

    Raises:
        UserError: if a folder has no finished run with weights, one of its files is not the recorded one, the weights
            are of another network, or the data set is missing or another one.
    """
    place = resolve_device(device)
    datasets: dict[str, Dataset] = {}
    prepared: dict[int, list[_Prepared]] = {}
    for folder in folders:
        record = read_record(folder)
        if record is None or WEIGHTS not in record.files:
            raise UserError(
                f"{folder}: has no finished run with its weights; name a folder with {RECORD} and {WEIGHTS}"
            )
        verify_files(folder, record)
        settings, execution = settings_of(folder, record, data_root, device)
        key = repr(settings.data)
        if key not in datasets:
            datasets[key] = load_dataset(settings.data)
        if datasets[key].checksum != record.data.checksum:
            raise UserError(
                f"data.root={data_root}: its checksum is {datasets[key].checksum}, that of {folder / RECORD} is "
                f"{record.data.checksum}; name the data set that the run was evaluated on"
            )
        run = _Prepared(folder, record, settings, execution, datasets[key])
        _load(settings.model, folder / WEIGHTS, datasets[key])
        prepared.setdefault(execution.threads, []).append(run)

    found = []
    for threads, runs in prepared.items():
        prepare_torch(runs[0].execution, place)
        side_by_side = SideBySide(place, threads or torch.get_num_threads())
        found += side_by_side.each(lambda run: run.evaluate(place), runs)
    return found


@dataclass(frozen=True)
class _Prepared:
    """A run whose files are verified."""

    folder: Path
    record: Record
    settings: RunSettings
    execution: Execution
    dataset: Dataset

    def evaluate(self, device: torch.device) -> Reevaluation:
        network = _load(self.settings.model, self.folder / WEIGHTS, self.dataset).to(device)
        images = DeviceData.of(self.dataset, device)
        now = evaluate(network, build_loss(self.settings.loss), images, self.settings.precision)
        then = read_predictions(self.folder)
        made = self.record.provenance
        version = made.versions.get("torch", "unknown")
        own = provenance.versions()["torch"]
        is_same = version == own and processor_kind(made.device) == processor_kind(describe(device))
        different, problems = len(now.target), []
        if not np.array_equal(then.target, now.target):
            problems.append("the recorded labels are not those of the data set")
        else:
            different = int(np.sum(then.predicted != now.predicted))
            ranks = int(np.sum(then.target_rank != now.target_rank))
            if is_same and device.type == "cpu" and (different or ranks):
                problems.append(
                    f"{different:,} predictions and {ranks:,} ranks of the target differ on the same processor"
                )
            elif different > LARGEST_ROUNDING_SHARE * len(then.target):
                problems.append(f"{different:,} predictions differ, more than rounding explains")
        elsewhere = None if is_same else f"{made.device}, torch {version}"
        return Reevaluation(self.record, now, different, elsewhere, tuple(problems))


def _load(model: ModelSettings, file: Path, dataset: Dataset) -> nn.Module:
    content = read_file(file)
    if content is None:
        raise UserError(f"{file}: no such file; name a safetensors file")
    try:
        network = build_network(model, len(dataset.class_names))
    except ValueError as error:
        raise UserError(f"model {error}") from None
    weights.load_into(network, content, file)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
