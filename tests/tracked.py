"""A process that trains one tracked run in a way that a test asks for: `python -m tests.tracked HOW FOLDER`."""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from anchorloss.config.settings import LoggerSettings
from anchorloss.tracking import loggers
from anchorloss.training.run import train
from tests.in_process import data_of, execution, finish, settings


def children() -> list[int]:
    """The processes that this one has started, as Linux lists them."""
    lists = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return [int(process) for each in lists for process in each.read_text().split()]


def main(how: str, folder: Path) -> None:
    """Train in `folder`, and print the longest time that the training has waited for W&B, in seconds."""
    (run,) = settings("loss=anchor_bg", "seeds=[7]", "optim.epochs=3")
    data, how_to = data_of(run), execution()
    new = loggers(LoggerSettings(name="auto" if how == "timed" else "wandb"), [run])
    tell, *others = new.args
    waits = []

    def timed(*message: object) -> None:
        begun = time.perf_counter()
        tell(*message)
        waits.append(time.perf_counter() - begun)

    def start():
        return train(run, folder, data, how_to, partial(new.func, timed, *others)(run, 300))

    folder = folder / run.run
    folder.mkdir(parents=True)
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
    print(max(waits))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
