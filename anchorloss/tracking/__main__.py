"""The process that talks to W&B: it reads from standard input what happens to the runs, a line of JSON each."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import sys
import threading
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

from anchorloss.data.class_names import class_names
from anchorloss.runs.folder import PREDICTIONS, WEIGHTS, Record, read_predictions, read_record
from anchorloss.terminal import counted
from anchorloss.tracking import FOLDER, OFFLINE


class WandbRuns:
    """The runs that this process, which runs wandb, tracks. A failure is said, and ends what it concerns."""

    def __init__(self, logger: str, project: str) -> None:
        self._project, self._folder = project, Path(os.environ.get("WANDB_DIR") or FOLDER)
        self._open: dict[str, Any] = {}
        self._started = {"online": 0, "offline": 0}
        self._mode: Any = "offline"
        if os.environ.get("WANDB_MODE") in OFFLINE:
            return
        try:
            if wandb.login(prompt=False, verify=False):
                self._mode = "online"
            elif logger == "auto":
                self._mode = None
            else:
                _tell("no key found (`wandb login`); runs are kept offline")
        except Exception as error:
            _tell(f"the key cannot be used ({_reason(error)}); runs are kept offline")

    def carry_out(self, action: str, run: str, *more: Any) -> None:
        """Carry out a message of the process that trains: start, log or finish a run."""
        try:
            if run in self._open or (action == "start" and self._mode):
                getattr(self, action)(run, *more)
        except BaseException as error:
            self._open.pop(run, None)
            _tell(f"{run} is not tracked from here on ({_reason(error)})")

    def start(self, run: str, arguments: dict[str, Any]) -> None:
        """Start a run online, else offline."""
        if "WANDB_SWEEP_ID" in os.environ and any(self._started.values()):
            raise RuntimeError("a W&B sweep names one run a process")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            place = {"project": self._project, "mode": self._mode, "dir": str(self._folder.absolute())}
            # The server, or `wandb sync`, appends a resumed run to what was logged before.
            started = wandb.init(**place, **arguments, resume="allow", reinit="create_new")
        except Exception as error:
            if re.search(r"\b409\b|previously created and deleted", str(error)):
                raise RuntimeError(f"{_reason(error)}; another logger.project would take it") from None
            if self._mode == "offline":
                self._mode = None
                raise
            self._mode = "offline"
            _tell(f"online runs do not start ({_reason(error)}); runs are kept offline")
            if self._open:
                raise
            # wandb's service keeps the run that failed and would take a second one of its id for the same.
            with suppress(Exception, SystemExit):
                wandb.teardown()
            self.start(run, arguments)
            return
        if self._mode == "online" and not self._started["online"]:
            _tell(str(started.project_url))
        self._started[self._mode] += 1
        self._open[run] = started
        started.define_metric("epoch", hidden=True)
        for section in ("train", "test", "validation", "factors"):
            started.define_metric(f"{section}/*", step_metric="epoch")

    def log(self, run: str, row: dict[str, Any]) -> None:
        """Log a row; the epoch is the step, so that an epoch repeated after a crash is not there twice."""
        self._open[run].log(row, step=row["epoch"])

    def finish(self, run: str, folder: str | None = None) -> None:
        """End a run: with its summary, tables and kept weights, or if it goes on later without a folder."""
        open_run, exit_code = self._open[run], 0
        if folder is None:
            open_run.summary.update({"status": "interrupted"})
        elif record := read_record(Path(folder)):
            open_run.summary.update(summary(record))
            exit_code = int(record.status == "failed")
            if PREDICTIONS in record.files:
                open_run.log(tables(record, Path(folder)), step=record.epochs)
            if WEIGHTS in record.files:
                artifact = wandb.Artifact(run, type="model", metadata={"hash": record.hash})
                artifact.add_file(str(Path(folder) / WEIGHTS))
                open_run.log_artifact(artifact)
        self._open.pop(run).finish(exit_code=exit_code)

    def end(self) -> None:
        """End what a killed process left open, and say where offline runs lie."""
        for run in list(self._open):
            self.carry_out("finish", run)
        folder, runs = self._folder / "wandb", counted(self._started["offline"], "run")
        if self._started["offline"]:
            _tell(f"{runs} offline: `wandb sync {folder}` sends them, `wandb leet {folder}` shows them here")
        with suppress(Exception, SystemExit):
            wandb.teardown()


def summary(record: Record) -> dict[str, Any]:
    """The summary of a W&B run, from its record: accuracies in percent, times in seconds."""
    columns = {key: getattr(record, key) for key in ("status", "evaluated_on", "top1", "top5", "test_loss")}
    columns |= {key: getattr(record.provenance, key) for key in ("device", "commit", "duration_seconds")}
    if record.failure is not None:
        columns |= {"failure": record.failure.reason, "failure_epoch": record.failure.epoch}
    if record.best is not None:
        columns |= {"best_epoch": record.best.epoch, "best_top1": record.best.top1}
    return {key: value for key, value in columns.items() if value is not None}


def tables(record: Record, folder: Path) -> dict[str, Any]:
    """`per_class`, a row a class, and `confusion`, a row a target and wrong prediction, the most frequent first."""
    import pandas as pd

    predictions = read_predictions(folder)
    frame = pd.DataFrame({"target": predictions.target, "predicted": predictions.predicted})
    # Labels are bytes.
    names = class_names(record.data.name, record.data.class_names, 256)
    frame = frame.map(names.__getitem__)
    right = frame["target"] == frame["predicted"]
    per_class = right.groupby(frame["target"], sort=False).agg(
        images="size", right="sum", top1=lambda each: 100 * each.mean()
    )
    mistaken = frame[~right].value_counts().rename("images").reset_index()
    mistaken["percent of target"] = 100 * mistaken["images"] / mistaken["target"].map(per_class["images"])
    return {
        "per_class": wandb.Table(dataframe=per_class.rename_axis("class").reset_index()),
        "confusion": wandb.Table(dataframe=mistaken),
    }


def _tell(line: str) -> None:
    with suppress(OSError):
        print(" ".join(line.split()), flush=True)


def _reason(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:120] or type(error).__name__


def main(logger: str, project: str) -> None:
    """Track the runs that standard input tells of, until it ends."""
    # A batch system's signal reaches all processes; the one that trains decides what becomes of its runs.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(10)
    messages: queue.SimpleQueue[str] = queue.SimpleQueue()

    def receive() -> None:
        for line in chain(sys.stdin, [""]):
            messages.put(line)

    # At once, so that there is room for more while wandb waits for a server.
    threading.Thread(target=receive, daemon=True).start()
    runs = WandbRuns(logger, project)
    while message := messages.get():
        runs.carry_out(*json.loads(message))
    runs.end()


if __name__ == "__main__":
    try:
        import wandb

        main(*sys.argv[1:])
    except Exception as error:
        _tell(f"does not start ({_reason(error)}); nothing is tracked")
