"""`hydra/launcher=processes`: a sweep in several processes on this machine, one for each GPU or processor core.

Every process gets the whole sweep; the claims on the run folders ensure that each run is trained once.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from types import FrameType

from omegaconf import DictConfig

from anchorloss.errors import UserError, one_line_errors
from anchorloss.sweep.cluster import ClusterLauncher, Job


class ProcessesLauncher(ClusterLauncher):
    """Starts the processes. On GPUs each sees its own; on a CPU each computes with one thread, because networks this
    small gain less from a second thread than from a second run.
    """

    def __init__(self, count: int) -> None:
        """Take the keys of configs/hydra/launcher/processes.yaml.

        Raises:
            UserError: The count is not between 0 and 1024.
        """
        if type(count) is not int or not 0 <= count <= 1024:
            raise UserError(f"hydra.launcher.count={count}: must be a whole number from 0 to 1024")
        self._count = count

    def carry_out(self, jobs: list[Job]) -> list[str]:
        """Train the jobs; see `ClusterLauncher`. SIGINT and SIGTERM are passed on to the processes.

        Raises:
            SystemExit: With status 130 or 143, after such a signal.
        """
        import torch

        from anchorloss.sweep.side_by_side import cores

        configs = [job.config for job in jobs]
        shared = any(config.device in ("auto", "cuda") for config in configs)
        gpus = gpu_names(torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")) if shared else []
        # One GPU by its number, as in device=cuda:1, is for one process.
        named = any(config.device.startswith("cuda:") for config in configs)
        count = self._count or len(gpus) or (1 if named else cores())
        runs = len({run.run for job in jobs for run in job.runs})
        # No process claims more than its share at once, else the first would leave nothing to the last.
        share = -(-runs // count)
        spawn = multiprocessing.get_context("spawn")
        processes = [
            spawn.Process(
                target=_work, args=(configs, gpus[place % len(gpus)] if gpus else None, place, share)
            )
            for place in range(count)
        ]

        def pass_on(number: int, _frame: FrameType | None) -> None:
            for process in processes:
                if process.pid is not None and process.is_alive():
                    os.kill(process.pid, number)

        earlier = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            for process in processes:
                process.start()
            for process in processes:
                process.join()
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)
        stopped = [process.exitcode for process in processes if process.exitcode in (130, 143)]
        if stopped:
            raise SystemExit(stopped[0])
        return [
            f"process {place} ended with status {process.exitcode}"
            for place, process in enumerate(processes)
            if process.exitcode not in (0, 1)
        ]


def gpu_names(count: int, visible: str | None) -> list[str]:
    """The name of each of `count` GPUs in CUDA_VISIBLE_DEVICES, whose present value is `visible`, None where not set."""
    names = visible.split(",") if visible else map(str, range(count))
    return [name.strip() for name in names][:count]


def _work(configs: list[DictConfig], gpu: str | None, place: int, share: int) -> None:
    """One process: its GPU or its thread, then the sweep as `train.py` trains it."""
    os.environ["TQDM_POSITION"] = str(place + 1)
    # One GPU by its number, as in device=cuda:1, is not for this process to choose.
    on_gpu = gpu is not None or any(config.device.startswith("cuda:") for config in configs)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    elif not on_gpu:
        os.environ["OMP_NUM_THREADS"] = "1"
    # Importing torch takes seconds, in which a signal may come, and may fail for want of memory.
    with one_line_errors():
        from anchorloss.config.parsing import parse
        from anchorloss.device import resolve_device
        from anchorloss.sweep.executor import default_width
        from anchorloss.sweep.plan import train_all

        for config in configs:
            if not on_gpu:
                config.threads = config.threads or 1
        if automatic := [config for config in configs if config.concurrent == "auto"]:
            width = 1  # on a CPU the processes share the cores out, not the runs within one
            if on_gpu:
                _, execution = parse(configs[0])
                width = min(share, default_width(execution, resolve_device(execution.device)))
            for config in automatic:
                config.concurrent = str(width)
        train_all(configs)
