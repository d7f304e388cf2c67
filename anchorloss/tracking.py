"""W&B or nothing, behind one small interface. What is tracked never changes a result.

A run is one W&B run: its group is the experiment and the loss, its job type the seed, so that W&B averages the
curves of a loss over its seeds. wandb is imported only where it is used.
"""

from __future__ import annotations

import importlib.util
import netrc
import os
import sys
from collections.abc import Mapping
from typing import Any, Protocol

from anchorloss.errors import UserError
from anchorloss.settings import LoggerSettings, RunSettings


class Tracker(Protocol):
    """What training tells about one run."""

    def log(self, row: Mapping[str, Any]) -> None:
        """One epoch's row of `history.csv`."""

    def finish(self, summary: Mapping[str, Any], failed: bool) -> None:
        """The run has ended, with these figures."""


class NoTracker:
    """Tracks nothing."""

    def log(self, row: Mapping[str, Any]) -> None:
        pass

    def finish(self, summary: Mapping[str, Any], failed: bool) -> None:
        pass


class WandbTracker:
    """One W&B run; a resumed run goes on under the same id."""

    def __init__(self, settings: RunSettings, project: str, mode: str, folder: str) -> None:
        import wandb

        self._run = wandb.init(
            project=project,
            mode=mode,  # type: ignore[arg-type]
            dir=folder,
            id=f"{settings.experiment}-{settings.run}",
            name=settings.run,
            group=f"{settings.experiment}/{settings.loss.name}",
            job_type=f"seed{settings.seed}",
            tags=[settings.experiment, settings.loss.name, settings.model.name, settings.data.name],
            config={"experiment": settings.experiment, "hash": settings.hash, **settings.identity()},
            resume="allow" if mode == "online" else None,
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._run.define_metric("epoch")
        self._run.define_metric("*", step_metric="epoch")

    def log(self, row: Mapping[str, Any]) -> None:
        self._run.log({key: value for key, value in row.items() if value is not None})

    def finish(self, summary: Mapping[str, Any], failed: bool) -> None:
        self._run.summary.update(dict(summary))
        self._run.finish(exit_code=1 if failed else 0)


class Tracking:
    """Decides once, with one line where it says something, how every run of this process is tracked."""

    def __init__(self, logger: LoggerSettings, folder: str) -> None:
        self._logger = logger
        self._folder = folder
        self._mode = self._choose_mode()

    def start(self, settings: RunSettings) -> Tracker:
        """A tracker of one run; nothing is tracked where W&B cannot be started, and a line says why."""
        if self._mode is None:
            return NoTracker()
        try:
            return WandbTracker(settings, self._logger.project, self._mode, self._folder)
        except Exception as error:  # a dashboard's trouble must never cost a run
            print(
                f"W&B does not start ({type(error).__name__}); {settings.run} is not tracked", file=sys.stderr
            )
            return NoTracker()

    def _choose_mode(self) -> str | None:
        name = self._logger.name
        if name == "none":
            return None
        installed = importlib.util.find_spec("wandb") is not None
        if name == "wandb" and not installed:
            raise UserError("logger=wandb: wandb is not installed; pip install wandb, or use logger=none")
        asked_for = os.environ.get("WANDB_MODE", "")
        if asked_for in ("disabled", "offline"):
            return None if asked_for == "disabled" or name == "auto" else "offline"
        if installed and _has_key():
            return "online"
        if name == "auto":
            return None
        print(
            "W&B: no key found (`wandb login`); runs are kept offline, `make wandb-sync` sends them",
            file=sys.stderr,
        )
        return "offline"


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = (
        os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0].split(":")[0]
    )
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
