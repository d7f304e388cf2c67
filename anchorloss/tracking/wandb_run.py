"""A run in W&B: its group, config, curves, summary and tables, and what happens when W&B fails."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import wandb
from tqdm import tqdm

from anchorloss.config.identity import RunSettings
from anchorloss.runs.folder import PREDICTIONS, Record, read_predictions
from anchorloss.tracking.tracker import Tracker

# Seconds to wait for a server: when a run starts, and for unsent data at its end.
INIT, FINISH = 5.0, 10.0
SYNC = "runs are kept offline, `make wandb-sync` sends them"


def choose_mode(without_key: str | None) -> str | None:
    """`online` where there is a key, else `without_key`; `offline` where the key is unusable.

    Never asks for a key, and asks no server: a server that does not answer is found when the first run starts. Prints a
    line where the mode is not the expected one.
    """
    try:
        wandb.setup(wandb.Settings(silent=True))
        found = wandb.login(prompt=False, verify=False)
    except Exception as error:
        say(f"W&B: the key cannot be used ({reason(error)}); {SYNC}")
        return "offline"
    if not found and without_key:
        say(f"W&B: no key found (`wandb login`); {SYNC}")
    return "online" if found else without_key


def say(line: str) -> None:
    """Print one line on stderr without breaking a progress bar."""
    tqdm.write(" ".join(line.split()), file=sys.stderr)


def reason(error: Exception) -> str:
    """The first line of an error's message, or its type."""
    return (str(error).splitlines() or [""])[0][:120] or type(error).__name__


class Session:
    """What the W&B runs of one process share: project, folder, mode, and that a failure is reported once."""

    def __init__(self, project: str, folder: Path, mode: str) -> None:
        self.project = project
        self.folder = folder
        self.mode: str | None = mode
        self._opened = 0
        self._live = 0
        self._told = False
        # Runs that train side by side start and end in threads.
        self._lock = threading.RLock()
        # Tables are kept here until they are sent: beside the runs they belong to, not in the home folder.
        os.environ.setdefault("WANDB_DATA_DIR", str(folder / "wandb" / "data"))

    def open(self, settings: RunSettings) -> Any:
        """Start a W&B run of these settings, online or else offline; None where neither works."""
        with self._lock:
            return self._open(settings)

    def _open(self, settings: RunSettings) -> Any:
        if "WANDB_SWEEP_ID" in os.environ and self._opened:
            self.trouble(f"a W&B sweep names one run a process; {settings.run} is not tracked")
            return None
        while self.mode is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                run = wandb.init(**self._arguments(settings))
            except Exception as error:
                if not self._give_way(error):
                    return None
                continue
            if self.mode == "online" and not self._opened:
                say(f"W&B: {run.project_url}")
            if not self._opened:
                # Before wandb's own, which prints a traceback where its service is gone.
                atexit.register(_tear_down)
            self._opened += 1
            self._live += 1
            return run
        return None

    def closed(self) -> None:
        """A run that was opened has been finished or given up."""
        with self._lock:
            self._live -= 1

    def _give_way(self, error: Exception) -> bool:
        """Go from online to offline, or from offline to nothing. Returns whether to try again."""
        if self.mode == "offline":
            self.mode = None
            self.trouble(f"does not start ({reason(error)}); nothing is tracked")
            return False
        self.mode = "offline"
        self.trouble(f"online runs do not start ({reason(error)}); {SYNC}")
        if self._live:
            return False
        # wandb's service keeps the run that failed and would take a second one of its id for the same.
        _tear_down()
        wandb.setup(wandb.Settings(silent=True))
        return True

    def trouble(self, what: str) -> None:
        """Report the first failure; more lines would only bury the results."""
        with self._lock:
            if not self._told:
                say(f"W&B: {what}")
            self._told = True

    def _arguments(self, settings: RunSettings) -> dict[str, Any]:
        tags = [settings.experiment, settings.loss.name, settings.model.name, settings.data.label]
        if settings.data.evaluate_on == "validation":
            tags.append("validation")
        return {
            "project": self.project,
            "mode": self.mode,
            "dir": str(self.folder),
            "id": f"{settings.experiment}-{settings.run}"[-128:],
            "name": settings.run,
            "group": f"{settings.experiment}/{settings.loss.name}"[:128],
            "job_type": f"seed{settings.seed}",
            "tags": [tag[:64] for tag in dict.fromkeys(tags)],
            "config": {
                "experiment": settings.experiment,
                "hash": settings.hash,
                "data_label": settings.data.label,
            }
            | settings.identity(),
            # The server, or `wandb sync`, appends a resumed run to what was logged before.
            "resume": "allow",
            "reinit": "create_new",
            "settings": wandb.Settings(
                silent=True,
                console="off",
                init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", INIT)),
                finish_timeout=float(os.environ.get("WANDB_FINISH_TIMEOUT", FINISH)),
                finish_timeout_raises=True,
            ),
        }


def _tear_down() -> None:
    with contextlib.suppress(Exception):
        wandb.teardown()


class WandbTracker(Tracker):
    """One W&B run. A resumed run continues under the same id. A failure ends the tracking, never the run."""

    def __init__(self, settings: RunSettings, session: Session) -> None:
        self._settings = settings
        self._session = session
        self._run: Any = None

    def __enter__(self) -> Self:
        self._run = self._session.open(self._settings)
        # The epoch is the axis of every curve.
        self._attempt(lambda: self._run.define_metric("epoch"))
        self._attempt(lambda: self._run.define_metric("*", step_metric="epoch"))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._attempt(lambda: self._run.summary.update({"status": "interrupted"}))
            self._end(exit_code=0)

    def log(self, row: Mapping[str, Any]) -> None:
        measured = {key: value for key, value in row.items() if value is not None}
        # The epoch is the step, so that an epoch repeated after a crash is not there twice.
        self._attempt(lambda: self._run.log(measured, step=row["epoch"]))

    def finish(self, record: Record, folder: Path) -> None:
        self._attempt(lambda: self._run.summary.update(summary(record)))
        if PREDICTIONS in record.files:
            self._attempt(lambda: self._run.log(tables(record, folder), step=record.epochs))
        self._end(exit_code=0 if record.status == "finished" else 1)

    def _end(self, exit_code: int) -> None:
        self._attempt(lambda: self._run.finish(exit_code=exit_code))
        self._release()

    def _attempt(self, action: Callable[[], Any]) -> None:
        if self._run is None:
            return
        try:
            action()
        except Exception as error:
            self._release()
            self._session.trouble(f"{self._settings.run} is no longer tracked ({reason(error)})")

    def _release(self) -> None:
        if self._run is not None:
            self._session.closed()
        self._run = None


def summary(record: Record) -> dict[str, Any]:
    """The summary of a W&B run, from its record: accuracies in percent, times in seconds."""
    columns: dict[str, Any] = {
        "status": record.status,
        "evaluated_on": record.evaluated_on,
        "device": record.provenance.device,
        "commit": record.provenance.commit,
        "duration_seconds": record.provenance.duration_seconds,
    }
    if record.failure is not None:
        columns |= {"failure": record.failure.reason, "failure_epoch": record.failure.epoch}
    if record.best is not None:
        columns |= {"best_epoch": record.best.epoch, "best_top1": record.best.top1}
        columns |= {"top1": record.top1, "top5": record.top5, "test_loss": record.test_loss}
    return columns


def tables(record: Record, folder: Path) -> dict[str, Any]:
    """The tables `per_class` and `confusion` of a run, from `predictions.npz` in `folder`.

    `per_class` has a row per class. `confusion` has a row for each target and wrong prediction that occur together, most
    frequent first.
    """
    import numpy as np

    from anchorloss.analysis.predictions import class_accuracy, confusions
    from anchorloss.data.class_names import class_name

    predictions = read_predictions(folder)
    classes = 1 + int(max(predictions.target.max(), predictions.predicted.max()))
    names = [class_name(record.data, index) for index in range(classes)]
    counts = confusions(predictions, classes)
    images = counts.sum(1)
    accuracy = class_accuracy(predictions, classes)
    per_class: list[Any] = [
        [names[index], int(images[index]), int(counts[index, index]), float(accuracy[index])]
        for index in np.flatnonzero(images)
    ]
    mistaken = counts - np.diag(np.diag(counts))
    cells = np.argwhere(mistaken)
    confusion: list[Any] = [
        [names[target], names[predicted], int(count), 100 * int(count) / int(images[target])]
        for (target, predicted), count in sorted(
            zip(cells.tolist(), mistaken[mistaken > 0], strict=True), key=lambda cell: -cell[1]
        )
    ]
    return {
        "per_class": wandb.Table(columns=["class", "images", "right", "top1"], data=per_class),
        "confusion": wandb.Table(
            columns=["target", "predicted", "images", "percent of target"], data=confusion
        ),
    }
