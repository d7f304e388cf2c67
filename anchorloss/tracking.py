"""W&B or nothing, behind one interface. Tracking never changes a result, and never fails or stalls a run.

wandb runs in a process of its own, `python -m anchorloss.tracking`. The process that trains writes what happens to its
standard input, a line of JSON each, and waits for no answer.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Self

from tqdm import tqdm

from anchorloss.config.settings import LoggerSettings, RunSettings, identity_hash
from anchorloss.data.class_names import class_name
from anchorloss.errors import UserError
from anchorloss.runs.folder import PREDICTIONS, WEIGHTS, Record, read_predictions, read_record
from anchorloss.terminal import counted

# W&B makes its folder `wandb` in here, or in $WANDB_DIR: results/ is for records alone.
FOLDER = "outputs"
OFFLINE = ("offline", "dryrun")  # values of WANDB_MODE
# Seconds that a command waits at its end for what is not sent yet.
END_SECONDS = 60.0
# What wandb reads of its environment. It waits for no server longer, and keeps tables beside the runs they belong to.
WANDB_SETTINGS = {
    "WANDB_SILENT": "true",
    "WANDB_CONSOLE": "off",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_INIT_TIMEOUT": "5",
    "WANDB_FINISH_TIMEOUT": "10",
    "WANDB_FINISH_TIMEOUT_RAISES": "true",
}


class Logger:
    """Receives the progress of one run: a `with` statement around its training, `log`, and last `finish`.

    This one does nothing.
    """

    def __enter__(self) -> Self:
        """Training starts or resumes."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Training has ended; `finish` follows unless an exception ended it."""

    def log(self, row: Mapping[str, Any]) -> None:
        """One epoch's row of `history.csv`."""

    def finish(self, folder: Path) -> None:
        """The run has its record and its other files in `folder`."""


def loggers(logger: LoggerSettings, plan: Sequence[RunSettings]) -> Callable[[RunSettings, int], Logger]:
    """Decide how the runs of this process are tracked.

    With `logger=auto`: online with a key, offline with WANDB_MODE=offline, else not. With `logger=wandb`: online with a
    key, else offline. With `logger=none`: not.

    Returns:
        A function from a run and the number of its training images to its logger.

    Raises:
        UserError: `logger=wandb` and wandb is not installed.
    """
    mode, is_installed = os.environ.get("WANDB_MODE", ""), importlib.util.find_spec("wandb") is not None
    if logger.name == "wandb" and not is_installed:
        raise UserError("logger=wandb: wandb is not installed; pip install wandb, or use logger=none")
    is_off = logger.name == "none" or mode == "disabled" or not is_installed
    if is_off or not (logger.name == "wandb" or mode in OFFLINE or _may_have_key()):
        return lambda run, images: Logger()
    return partial(WandbLogger, WandbProcess(logger).tell, swept(plan))


def _may_have_key() -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        places = [Path(os.environ.get("NETRC") or Path.home() / ".netrc"), Path.home() / "_netrc"]
    except RuntimeError:
        say("there is no home folder to look for a key in; nothing is tracked")
        return False
    return any(place.is_file() for place in places)


class WandbLogger(Logger):
    """One W&B run: `tell` sends to the process that runs wandb. A resumed run continues under the same id."""

    def __init__(
        self, tell: Callable[..., None], swept: frozenset[str], run: RunSettings, images: int
    ) -> None:
        self._tell, self._swept, self._run, self._images = tell, swept, run, images
        self._last_row: float | None = None

    def __enter__(self) -> Self:
        self._tell("start", self._run.run, arguments(self._run, self._swept))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._tell("finish", self._run.run)

    def log(self, row: Mapping[str, Any]) -> None:
        now, shown = time.monotonic(), metrics(self._run, row)
        # Of the epoch before its first row, a resumed run may have trained a part elsewhere.
        if self._last_row is not None:
            shown["train/images_per_second"] = self._images / (now - self._last_row)
        self._last_row = now
        self._tell("log", self._run.run, shown)

    def finish(self, folder: Path) -> None:
        self._tell("finish", self._run.run, str(folder.absolute()))


def metrics(run: RunSettings, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `history.csv` under names that W&B sorts into sections, without the factor that the loss leaves at 1."""
    anchor = str(run.loss.arguments.get("anchor"))
    constant = {"target": "background_factor", "background": "target_factor"}.get(anchor, anchor)
    shown = {"epoch": row["epoch"]}
    for key, value in row.items():
        if value is None or key == "epoch" or key.startswith(constant):
            continue
        if key in ("test_loss", "top1", "top5"):
            shown[f"{run.data.evaluate_on}/{key.removeprefix('test_')}"] = value
        elif "_factor_" in key:
            shown[f"factors/{key.replace('_factor', '')}"] = value
        else:
            shown[f"train/{key.removeprefix('train_')}"] = value
    return shown


def arguments(run: RunSettings, swept: frozenset[str]) -> dict[str, Any]:
    """Name, group, tags and config of a run in W&B.

    A group holds the seeds of one setting: it names the loss with its numbers and what is swept, and ends in a hash of
    everything but the seed.
    """
    identity = run.identity()
    setting = {key: value for key, value in identity.items() if key != "seed"}
    named = [
        f"{key.removeprefix('loss.')}={value}"
        for key, value in flat(setting).items()
        if key in swept or (key.startswith("loss.") and isinstance(value, int | float))
    ]
    name = " ".join([run.loss.name, *named])
    validation = ["validation"] * (run.data.evaluate_on == "validation")
    tags = [run.experiment, run.loss.name, run.model.name, run.data.label, *validation]
    config = {"experiment": run.experiment, "run": run.run, "hash": run.hash, "data_label": run.data.label}
    return {
        "id": f"{run.experiment}-{run.run}"[-128:],
        "name": f"{name:.100} seed={run.seed}",
        "group": f"{f'{run.experiment}/{name}':.119} {identity_hash(setting)[:8]}",
        "job_type": f"seed{run.seed}",
        "tags": [tag[:64] for tag in dict.fromkeys(tags)],
        "config": config | identity,
    }


def swept(plan: Sequence[RunSettings]) -> frozenset[str]:
    """The settings, by dotted key, in which the plan's runs differ beside their loss and seed."""
    values: dict[str, set[str]] = {}
    for run in plan:
        for key, value in flat(run.identity()).items():
            if key != "seed" and not (key.startswith("loss.") and isinstance(value, str)):
                values.setdefault(key, set()).add(repr(value))
    return frozenset(key for key, found in values.items() if len(found) > 1)


def flat(identity: Mapping[str, Any]) -> dict[str, Any]:
    """A run's settings by dotted key."""
    parts = ((key, part if isinstance(part, Mapping) else {"": part}) for key, part in identity.items())
    return {f"{key}.{name}".rstrip("."): value for key, part in parts for name, value in part.items()}


def say(line: str) -> None:
    """Print one line on stderr without breaking a progress bar."""
    tqdm.write(f"W&B: {' '.join(line.split())}", file=sys.stderr)


class WandbProcess:
    """The process that runs wandb, as the one that trains sees it."""

    def __init__(self, logger: LoggerSettings) -> None:
        path = [str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        data = str(Path(os.environ.get("WANDB_DIR") or FOLDER).absolute() / "wandb" / "data")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "anchorloss.tracking", logger.name, logger.project],
            env={**WANDB_SETTINGS, "WANDB_DATA_DIR": data, **os.environ, "PYTHONPATH": os.pathsep.join(path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the training, which then says how its runs have ended
        )
        assert self._process.stdin is not None
        self._stdin = self._process.stdin
        os.set_blocking(self._stdin.fileno(), False)
        self._speaker = threading.Thread(target=self._show, daemon=True)
        self._speaker.start()
        atexit.register(self._close)

    def tell(self, *message: object) -> None:
        """Send a message; one for which there is no room at once is dropped."""
        with suppress(OSError):
            self._stdin.write(json.dumps(message).encode() + b"\n")

    def _show(self) -> None:
        for line in self._process.stdout or ():
            say(line.decode(errors="replace"))
        if not self._stdin.closed:
            say("its process has ended; nothing is tracked any more")

    def _close(self) -> None:
        try:
            self._stdin.close()
            self._process.wait(END_SECONDS)
            self._speaker.join(1)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            os.killpg(self._process.pid, signal.SIGKILL)
            say("not everything could be sent; `make wandb-sync` does it later")


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
    frame = frame.map(lambda index: class_name(record.data, index))
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
