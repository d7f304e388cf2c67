"""W&B or nothing, behind one interface. Tracking never changes a result, and never fails or stalls a run.

wandb runs in a process of its own, `python -m anchorloss.tracking`. The process that trains writes what happens to its
standard input, a line of JSON each, and waits for no answer.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

from tqdm import tqdm

from anchorloss.config.settings import LoggerSettings, RunSettings, identity_hash
from anchorloss.errors import UserError

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
