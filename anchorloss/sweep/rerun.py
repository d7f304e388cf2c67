"""A run trained again from its own folder, whole or its first epoch alone, and what differs from its record."""

from __future__ import annotations

import csv
import dataclasses
import re
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from anchorloss.config.identity import RunSettings
from anchorloss.config.parsing import parse
from anchorloss.config.settings import Config, Execution, LoggerSettings
from anchorloss.data.dataset import load_dataset
from anchorloss.device import describe, resolve_device
from anchorloss.errors import UserError
from anchorloss.runs import provenance
from anchorloss.runs.differences import describe_difference
from anchorloss.runs.folder import (
    HISTORY,
    WEIGHTS,
    Record,
    read_record,
    run_config,
    run_folder,
    verify_files,
)
from anchorloss.sweep.executor import execute, prepare_torch
from anchorloss.tracking import Logger
from anchorloss.training.device_data import DeviceData
from anchorloss.training.run import train


@dataclass(frozen=True)
class RerunResult:
    """`differences` says of each value that differs what was recorded and what came out now; empty if all is equal.

    `circumstances` has in the same way what may make them differ: commit, device, versions.
    """

    run: str
    differences: dict[str, tuple[str, str]]
    circumstances: dict[str, tuple[str, str]]


def rerun(
    folder: Path, data_root: str, *, first_epoch: bool, device: str = "auto", into: Path | None = None
) -> RerunResult:
    """Train the run of `folder` again, with the record's number of threads, and compare.

    Whole: the record and the bytes of history and predictions; the new run is kept in the results folder `into` if one
    is named. `first_epoch`: the first row of the history.

    Raises: UserError if the folder has no finished run that this code can name, or the data are missing; RunError.
    """
    record = read_record(folder)
    if record is None or record.status != "finished":
        raise UserError(f"{folder}: has no record of a finished run; name a folder with a record.json")
    verify_files(folder, record)
    settings, execution = settings_of(folder, record, data_root, device)
    prepare_torch(execution, resolve_device(device))
    with tempfile.TemporaryDirectory() as temporary:
        if first_epoch:
            differences = _compare_first_epoch(folder, settings, execution, Path(temporary))
        else:
            execution = dataclasses.replace(execution, results_dir=into or Path(temporary))
            execute([settings], execution)
            again = read_record(run_folder(execution.results_dir, settings.experiment, settings.run))
            assert again is not None
            differences = describe_difference(record.result(), again.result())
    return RerunResult(record.run, differences, _circumstances(record, device))


def settings_of(folder: Path, record: Record, data_root: str, device: str) -> tuple[RunSettings, Execution]:
    """The run of a folder as settings, and how to carry it out as its record was made.

    Raises:
        UserError: if the record's settings name another run here.
    """
    found = run_config(record.experiment, record.identity)
    runs, execution = parse(cast(DictConfig, OmegaConf.merge(OmegaConf.structured(Config), found)))
    settings = dataclasses.replace(runs[0], data=dataclasses.replace(runs[0].data, root=data_root))
    if settings.run != record.run:
        raise UserError(
            f"{folder}: its settings name the run {settings.run} here; check out its commit {record.provenance.commit}"
        )
    # Records made before November 2026 have it in the device's description alone.
    told = re.search(r"\((\d+) threads?\b", record.provenance.device)
    return settings, dataclasses.replace(
        execution,
        device=device,
        logger=LoggerSettings("none"),
        threads=record.provenance.threads or (int(told[1]) if told else 0),
        compile=record.provenance.compile,
        keep_weights=WEIGHTS in record.files,
    )


def _compare_first_epoch(
    folder: Path, settings: RunSettings, execution: Execution, results: Path
) -> dict[str, tuple[str, str]]:
    again = results / settings.run
    again.mkdir()
    data = DeviceData.of(load_dataset(settings.data), resolve_device(execution.device))
    with closing(train(settings, again, data, execution, Logger())) as steps:
        for _ in steps:
            if (again / HISTORY).exists():
                break
    texts = ((each / HISTORY).read_text() for each in (folder, again))
    return describe_difference(*(next(csv.DictReader(text.splitlines())) for text in texts))


def _circumstances(record: Record, device: str) -> dict[str, tuple[str, str]]:
    commit, dirty = provenance.commit()
    here = {"commit": commit, "dirty": dirty, "device": describe(resolve_device(device))}
    now: dict[str, Any] = {**here, "versions": provenance.versions()}
    return describe_difference({key: getattr(record.provenance, key) for key in now}, now)
