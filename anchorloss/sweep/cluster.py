"""Sweeps on a cluster: what the launchers for Slurm and Ray have in common.

A sweep is cut into jobs, one for each combination that was swept over. A node trains the runs of a job as `train.py`
would, and the outcome is read from the run records, however often an engine killed, requeued or doubled a job.
"""

from __future__ import annotations

import hashlib
import sys
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from anchorloss.config.identity import RunSettings
from anchorloss.config.parsing import parse
from anchorloss.errors import RunError, UserError
from anchorloss.runs.folder import Record, read_record, run_folder
from anchorloss.sweep.launcher import SweepLauncher
from anchorloss.sweep.plan import train_all
from anchorloss.terminal import counted


@dataclass(frozen=True)
class Job:
    """The runs of one combination of a sweep, and the config that trains them on any node with the same folders."""

    config: DictConfig
    runs: list[RunSettings]

    @property
    def name(self) -> str:
        """The same for the same runs in the same results folder, so that a job that is queued can be found again."""
        identity = "\n".join([self.config.results_dir, *sorted(run.run for run in self.runs)])
        digest = hashlib.sha256(identity.encode()).hexdigest()[:10]
        return f"{self.runs[0].loss.name}-{self.runs[0].model.name}-{digest}"

    def record(self, run: RunSettings) -> Record | None:
        return read_record(run_folder(Path(self.config.results_dir), run.experiment, run.run))

    @property
    def is_done(self) -> bool:
        """Whether no run of the job is left to train.

        Raises:
            UserError: The record of any of them is damaged.
        """
        done = ("finished",) if self.config.retry_failed else ("finished", "failed")
        records = [self.record(run) for run in self.runs]
        return all(record is not None and record.status in done for record in records)


def train_job(config: DictConfig) -> str | None:
    """Train the runs of a job; what a node calls. After a signal it raises SystemExit, as `train.py`.

    Returns:
        None when each has its record, be it of a failed run, or the time is spent; else one line that says why not.
    """
    try:
        train_all([config])
    except (UserError, RunError) as error:
        return " ".join(str(error).split())
    except SystemExit as end:
        # Status 1: some runs failed. Their records say so.
        if end.code != 1:
            raise
    return None


class ClusterLauncher(SweepLauncher):
    """A launcher that gives each job to an engine and reads the outcome from the records."""

    @abstractmethod
    def carry_out(self, jobs: list[Job]) -> list[str]:
        """Have the jobs trained; return a line for each that had trouble."""

    def train(self, configs: list[DictConfig]) -> None:
        """Have the runs trained by the engine.

        Raises:
            RunError: runs are left without a record.
            SystemExit: with status 1 if runs failed.
        """
        jobs = [_job(config) for config in configs]
        if any(config.precision == "auto" for config in configs):
            print(
                f"precision={jobs[0].config.precision} in every job, as this machine would choose for itself"
            )
        left = [job for job in jobs if not job.is_done]
        print(f"{len(jobs) - len(left)} of {counted(len(jobs), 'job')} done, {len(left)} to do", flush=True)
        troubles = self.carry_out(left) if left else []
        for trouble in troubles:
            print(trouble, file=sys.stderr)
        _conclude(jobs, has_budget=configs[0].minutes > 0 and not troubles)


def _job(config: DictConfig) -> Job:
    """What a node needs of a job's config: whole paths, nothing that each node would decide for itself."""
    config = config.copy()
    config.results_dir = str(Path(config.results_dir).resolve())
    config.data.root = str(Path(config.data.root).resolve())
    OmegaConf.resolve(config)
    runs, _ = parse(config)
    config.precision = runs[0].precision
    return Job(config, runs)


def _conclude(jobs: list[Job], *, has_budget: bool) -> None:
    from anchorloss.sweep.messages import refuse_failed  # imports torch, which `--help` does not need

    found = {run.run: job.record(run) for job in jobs for run in job.runs}
    missing = [run for run, record in found.items() if record is None]
    unfinished = f"{len(missing)} of {counted(len(found), 'run')}"
    if missing and not has_budget:
        raise RunError(
            f"{unfinished} without a record: {', '.join(missing)}; the same command goes on with them"
        )
    if missing:
        print(f"{unfinished} unfinished: give the same command again to go on")
    refuse_failed(found.values())
    if not missing:
        print(f"{counted(len(found), 'run')} finished")
