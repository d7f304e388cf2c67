"""An experiment as a pandas DataFrame, a row a run: what every table, figure and sentence is made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from anchorloss.analysis.paper import LOSSES
from anchorloss.analysis.predictions import calibration_error, score_gap
from anchorloss.device import processor_kind
from anchorloss.errors import UserError
from anchorloss.runs.differences import differences, flatten
from anchorloss.runs.folder import HISTORY, Predictions, RunFolder, read_history, read_predictions, read_runs


class Measure(NamedTuple):
    """A score of a run, in percent; `of` computes it from the predictions, where the record does not have it."""

    name: str
    of: Callable[[Predictions], float] | None = None
    lower_is_better: bool = False
    in_table: bool = True


# The first is the primary measure. A further one is one line here: it is then in table, statistics and report.
MEASURES = {
    "top1": Measure("Top-1"),
    "top5": Measure("Top-5"),
    "ece": Measure("expected calibration error", calibration_error, lower_is_better=True, in_table=False),
}
PRIMARY = next(iter(MEASURES))
SCORES = {key: measure.name for key, measure in MEASURES.items() if measure.in_table}
# Columns that are there whether or not a run has ended.
ALWAYS = ("top1", "top5", "epochs", "evaluated_on", "processor", "progress.epoch", "failure.reason")


def runs(experiment: str, results_dir: str | Path = "results") -> pd.DataFrame:
    """Read every run of an experiment.

    Returns:
        A row for each run folder, indexed by the run's name, the paper's losses first, then by seed: `loss`, `model`,
        `seed`, `folder`, `state` (finished, failed, running, interrupted, waiting); the record's fields (`top1`, `top5`
        in percent, `provenance.device`, `dataset.checksum`, ...) and `processor`, the kind that trained it; `progress.*`
        of unfinished runs; the settings by their dotted keys (`loss.gamma`, `optim.lr`, ...), and nested in `settings`.
        What a run does not have is missing (NaN or None).

    Raises:
        UserError: There is no such experiment, or a record is damaged.
    """
    found = read_runs(Path(results_dir), experiment)
    if not found:
        raise UserError(
            f"experiment={experiment}: no runs in {results_dir}; run python train.py experiment={experiment}"
        )
    found.sort(key=lambda run: (order(run.loss), run.seed, run.name))
    names = pd.Index([run.name for run in found], name="run")
    frame = pd.DataFrame([_row(run, experiment) for run in found], index=names)
    return frame.reindex(columns=list(dict.fromkeys([*frame, *ALWAYS])))


def _row(run: RunFolder, experiment: str) -> dict[str, Any]:
    row: dict[str, Any] = {"experiment": experiment, "loss": run.loss, "model": run.model, "seed": run.seed}
    row |= {"state": run.state, "folder": run.folder}
    if run.record is not None:
        fields = run.record.model_dump(exclude_unset=True)
        settings, fields["dataset"] = fields.pop("identity"), fields.pop("data")
        row |= {key: value for key, value in flatten(fields).items() if key not in ("run", "status", "hash")}
        row["processor"] = processor_kind(run.record.provenance.device)
    else:
        settings = run.settings
        row |= flatten({"progress": run.progress.model_dump()}) if run.progress is not None else {}
    settings = {key: value for key, value in settings.items() if key not in ("seed", "seeds", "experiment")}
    return {**row, **flatten(settings), "settings": settings}


def histories(experiment: str, results_dir: str | Path = "results") -> pd.DataFrame:
    """Read the histories of the runs of an experiment that have ended.

    Returns:
        A row for each epoch of each run: `run`, `loss`, `model`, `seed`, then the columns of history.csv: `epoch`
        (1-based), `learning_rate`, `train_loss`, `train_top1`, `test_loss`, `top1`, `top5` (percent), and quantiles of
        the modulating factors. Accuracies are missing in epochs without evaluation.

    Raises:
        UserError: There is no such experiment, no run has a history, or a file is not the one in its record.
    """
    return histories_of(runs(experiment, results_dir))


def histories_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Return `histories` of the runs in `frame`."""
    parts = []
    for name, run in frame.iterrows():
        # A run that failed in its first epoch has none.
        if not pd.isna(run.get(f"files.{HISTORY}")):
            history, keys = read_history(run["folder"]), {"run": name, **run[["loss", "model", "seed"]]}
            parts.append(history.assign(**keys)[[*keys, *history]])
    if not parts:
        experiment = frame["experiment"].iloc[0]
        raise UserError(
            f"experiment={experiment}: no run has ended; run python train.py experiment={experiment}"
        )
    return pd.concat(parts, ignore_index=True)


def measured(
    frame: pd.DataFrame, keys: Iterable[str] = MEASURES, answers: pd.Series | None = None
) -> pd.DataFrame:
    """Add the measures `keys` that are computed from the predictions of finished runs, and `score_gap` with `ece`.

    `answers` are those predictions by run, where they have been read.
    """
    wanted = {key: of for key in keys if (of := MEASURES[key].of) is not None and key not in frame}
    wanted |= {"score_gap": score_gap} if "ece" in wanted else {}
    rows: dict[Any, dict[str, float]] = {}
    for name, folder in frame.loc[frame["state"] == "finished", "folder"].items() if wanted else ():
        predictions = read_predictions(folder) if answers is None else answers.loc[str(name)]
        rows[name] = {key: of(predictions) for key, of in wanted.items()}
    return frame.join(pd.DataFrame.from_dict(rows, orient="index", columns=list(wanted), dtype=float))


def order(loss: str) -> tuple[int, str]:
    """Return a sort key: losses in the order of the paper's table, others after them by name."""
    return (LOSSES.index(loss) if loss in LOSSES else len(LOSSES), loss)


def swept(frame: pd.DataFrame) -> list[str]:
    """List the settings beside loss and seed in which runs differ; those of a loss (`loss.*`) within one loss."""
    found = differences(list(zip(frame["loss"], frame["settings"], strict=True)))
    return sorted({key for *_, difference in found for key in difference})


def require_one_protocol(frame: pd.DataFrame, apart_from: Iterable[str] = ()) -> None:
    """Refuse runs that saw other data or differ in more than loss, seed and the settings `apart_from`.

    Raises:
        UserError: Names two such runs and what differs.
    """
    seen = [str(key) for key in frame if str(key).startswith("dataset.")] + ["evaluated_on", "epochs"]
    compared = [
        {**run["settings"], "record": {key: run[key] for key in seen}} for run in frame.to_dict("records")
    ]
    for first, second, found in differences(list(zip(frame["loss"], compared, strict=True))):
        named = [
            f"{key} is {ours} in one, {theirs} in the other"
            for key, (ours, theirs) in found.items()
            if key not in apart_from
        ]
        if named:
            raise UserError(
                f"{frame.index[first]} and {frame.index[second]} cannot stand in one table: {'; '.join(named)}; move "
                "the runs of one of them away, or train them under another experiment.name"
            )


def require_reference(reference: str, losses: Iterable[str]) -> None:
    """Raise UserError if a reference that was named is not among `losses`."""
    known = sorted(set(losses), key=order)
    if reference not in known:
        raise UserError(f"--reference {reference}: has no run; use one of {', '.join(known)}")
