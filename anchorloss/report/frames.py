"""An experiment's runs, and their histories, as pandas DataFrames: docs/pandas.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from anchorloss.errors import UserError
from anchorloss.runs.differences import flatten
from anchorloss.runs.folder import HISTORY, RunFolder, read_history, read_runs


def runs(experiment: str, results_dir: str | Path = "results") -> pd.DataFrame:
    """Read every run of an experiment.

    Returns:
        A row for each run folder, indexed by the run's name: `state` (finished, failed, running, interrupted, waiting);
        for runs with a record its fields (`top1`, `top5` in percent, `best.epoch`, `provenance.device`, …); and the
        settings by their dotted keys (`loss.gamma`, `optim.lr`, …). What a run does not have is missing (NaN or None).

    Raises:
        UserError: there is no such experiment, or a record is damaged.
    """
    found = _found(experiment, results_dir)
    rows = [_row(run) for run in found]
    return pd.DataFrame(rows, index=pd.Index([run.name for run in found], name="run"))


def histories(experiment: str, results_dir: str | Path = "results") -> pd.DataFrame:
    """Read the histories of the runs of an experiment that have ended.

    Returns:
        A row for each epoch of each run: `run`, `loss`, `model`, `seed`, then the columns of history.csv: `epoch`
        (1-based), `learning_rate`, `train_loss`, `train_top1`, `test_loss`, `top1`, `top5` (percent), and quantiles of
        the modulating factors. Accuracies are missing in epochs without evaluation.

    Raises:
        UserError: there is no such experiment, no run has a history, or a file is not the one in its record.
    """
    parts = []
    for run in _found(experiment, results_dir):
        if run.record is not None and HISTORY in run.record.files:
            history = read_history(run.folder)
            keys: dict[str, Any] = {"run": run.name, "loss": run.loss, "model": run.model, "seed": run.seed}
            parts.append(history.assign(**keys)[[*keys, *history]])
    if not parts:
        raise UserError(
            f"experiment={experiment}: no run has ended; run python train.py experiment={experiment}"
        )
    return pd.concat(parts, ignore_index=True)


def _found(experiment: str, results_dir: str | Path) -> list[RunFolder]:
    found = read_runs(Path(results_dir), experiment)
    if not found:
        raise UserError(
            f"experiment={experiment}: no runs in {results_dir}; run python train.py experiment={experiment}"
        )
    return found


def _row(run: RunFolder) -> dict[str, Any]:
    row: dict[str, Any] = {"loss": run.loss, "model": run.model, "seed": run.seed, "state": run.state}
    settings = run.settings
    if run.record is not None:
        record = json.loads(run.record.to_json())
        settings = record.pop("identity")
        for key in ("format", "status", "run", "loss", "model", "seed", "hash", "files"):
            del record[key]
        row.update(flatten(record))
    # The names say less than what they hold: `loss` is a column, `loss.name` would be the same again.
    return {**row, **{key: value for key, value in flatten(settings).items() if key not in ("seed", "seeds")}}
