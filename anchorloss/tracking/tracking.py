"""W&B or nothing, behind one interface. Tracking never changes a result and never fails a run."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from anchorloss.config.identity import RunSettings
from anchorloss.config.settings import LoggerSettings
from anchorloss.errors import UserError
from anchorloss.tracking.tracker import Tracker

# W&B makes its folder `wandb` in here, or in $WANDB_DIR: results/ is for records alone.
FOLDER = "outputs"
# The values of WANDB_MODE that mean offline.
OFFLINE = ("offline", "dryrun")


class Tracking:
    """Decides once how the runs of this process are tracked.

    With `logger=auto`: online with a key, offline with WANDB_MODE=offline, else nothing. With `logger=wandb`: online with
    a key, else offline. With `logger=none`: nothing, and wandb is not imported. A server that does not answer within
    seconds means offline.

    Raises:
        UserError: If `logger=wandb` and wandb is not installed.
    """

    def __init__(self, logger: LoggerSettings) -> None:
        self._session = None
        if not _wanted(logger.name):
            return
        # wandb-core would print that it could not report its own errors; read when wandb is first imported.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        from anchorloss.tracking import wandb_run

        mode: str | None = "offline"
        if os.environ.get("WANDB_MODE") not in OFFLINE:
            mode = wandb_run.choose_mode(without_key=None if logger.name == "auto" else "offline")
        if mode is not None:
            folder = Path(os.environ.get("WANDB_DIR") or FOLDER).absolute()
            self._session = wandb_run.Session(logger.project, folder, mode)

    def start(self, settings: RunSettings) -> Tracker:
        """A tracker of one run."""
        if self._session is None:
            return Tracker()
        from anchorloss.tracking.wandb_run import WandbTracker

        return WandbTracker(settings, self._session)


def _wanted(logger: str) -> bool:
    """Whether to import wandb at all, which takes half a second."""
    if logger == "none":
        return False
    installed = importlib.util.find_spec("wandb") is not None
    if logger == "wandb" and not installed:
        raise UserError("logger=wandb: wandb is not installed; pip install wandb, or use logger=none")
    mode = os.environ.get("WANDB_MODE", "")
    if mode == "disabled":
        return False
    return installed and (logger == "wandb" or mode in OFFLINE or _may_have_key())


def _may_have_key() -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    named = os.environ.get("NETRC")
    places = [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]
    return any(place.is_file() for place in places)
