"""A process that trains one tracked run in a way that a test asks for: `python -m tests.tracked HOW FOLDER`."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from anchorloss.config.settings import LoggerSettings
from anchorloss.tracking.tracking import Tracking
from anchorloss.training.run import train
from tests.in_process import data_of, execution, finish, settings


def children() -> list[int]:
    """The processes that this one has started, as Linux lists them."""
    lists = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return [int(process) for each in lists for process in each.read_text().split()]


def main(how: str, folder: Path) -> None:
    (run,) = settings("loss=anchor_bg", "seeds=[7]", "optim.epochs=3")
    data = data_of(run)
    tracking = Tracking(LoggerSettings(name="wandb"))
    folder.mkdir()

    def start():
        return train(run, folder, data, execution(), tracking.start(run))

    steps = start()
    for _ in range(7):  # of 5 an epoch
        next(steps)
    if how == "resumed":
        steps.close()
        time.sleep(1.1)  # W&B names the folders of offline runs by the second
        steps = start()
    if how == "killed":
        for process in children():
            os.kill(process, signal.SIGKILL)
    finish(steps)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
