"""What a Slurm node calls."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Any

from omegaconf import DictConfig

from anchorloss.sweep.cluster import train_job


class SlurmJob:
    """Trains the runs of a job. submitit calls `checkpoint` when Slurm's time limit nears, and requeues the job."""

    def __call__(self, config: DictConfig) -> str | None:
        try:
            return train_job(config)
        except SystemExit as end:
            if end.code == 128 + signal.SIGTERM and _is_being_preempted():
                # Slurm requeues a job that is still there when its grace time ends, and forgets one that has left.
                subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
            raise

    def checkpoint(self, config: DictConfig) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, config)


def _is_being_preempted() -> bool:
    """Whether the SIGTERM means pre-emption, rather than `scancel` or a requeue that Slurm sees to itself."""
    command = ["scontrol", "show", "job", os.environ["SLURM_JOB_ID"]]
    words = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return "JobState=RUNNING" in words and "PreemptTime=None" not in words
