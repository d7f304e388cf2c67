"""`hydra/launcher=slurm`: the jobs of a sweep as Slurm jobs, submitted and requeued by submitit.

docs/clusters.md says why not hydra-submitit-launcher.
"""

from __future__ import annotations

import getpass
import math
import subprocess
import time
from typing import TYPE_CHECKING, Any

from anchorloss.errors import RunError, UserError
from anchorloss.sweep.cluster import ClusterLauncher, Job
from anchorloss.sweep.signals import Signals
from anchorloss.sweep.slurm_job import SlurmJob

if TYPE_CHECKING:
    import submitit

# A disk that nodes share may show a job's result some seconds after the job has left the queue.
RESULT_SECONDS = 10.0


class SlurmLauncher(ClusterLauncher):
    """Submits each job, or finds it in the queue, and waits for all."""

    def __init__(self, folder: str, poll_seconds: float, max_timeouts: int, **parameters: Any) -> None:
        """Take the keys of configs/hydra/launcher/slurm.yaml; `parameters` are those of submitit's SlurmExecutor.

        Raises:
            UserError: `poll_seconds` is no number above 0, or `max_timeouts` no whole number from 0.
        """
        if type(poll_seconds) not in (int, float) or not 0 < poll_seconds < math.inf:
            raise UserError(f"hydra.launcher.poll_seconds={poll_seconds}: must be a finite number above 0")
        if type(max_timeouts) is not int or max_timeouts < 0:
            raise UserError(f"hydra.launcher.max_timeouts={max_timeouts}: must be a whole number from 0")
        self._folder = folder
        self._poll_seconds = poll_seconds
        self._max_timeouts = max_timeouts
        self._parameters = {name: value for name, value in parameters.items() if value is not None}

    def carry_out(self, jobs: list[Job]) -> list[str]:
        """Train the jobs; see `ClusterLauncher`.

        Raises:
            UserError: submitit or Slurm is missing, or refuses a parameter.
            RunError: Slurm does not answer or refuses a job.
            SystemExit: With status 128 + the signal, after SIGINT or SIGTERM; the jobs go on in Slurm.
        """
        # A KeyboardInterrupt would be lost where it meets a finalizer of submitit's.
        with Signals() as signals:
            troubles = self._wait(self._submit(jobs, signals), signals)
        if signals.received is not None:
            print("interrupted; the jobs go on in Slurm, and the same command waits for them again")
            raise SystemExit(128 + signals.received)
        return troubles

    def _submit(self, jobs: list[Job], signals: Signals) -> list[submitit.SlurmJob[str | None]]:
        """One Slurm job for each job that is not in the queue already."""
        executor = self._executor()
        queued = {name: number for number, (name, _) in _queue().items()}
        submitted = []
        for job in jobs:
            if signals.received is not None:
                break
            if job.name in queued:
                submitted.append(executor.job_class(executor.folder, queued[job.name]))
            else:
                submitted.append(_submit(executor, job))
            before = ", queued before" * (job.name in queued)
            print(f"{job.name}: Slurm job {submitted[-1].job_id}{before}", flush=True)
        return submitted

    def _executor(self) -> submitit.SlurmExecutor:
        try:
            import submitit

            executor = submitit.SlurmExecutor(self._folder, max_num_timeout=self._max_timeouts)
            executor.update_parameters(**self._parameters)
        except ImportError:
            raise UserError("hydra/launcher=slurm: needs submitit; pip install -e '.[slurm]'") from None
        except RuntimeError:
            raise UserError("hydra/launcher=slurm: there is no `srun` here; use a Slurm cluster") from None
        except ValueError as error:
            raise UserError(f"hydra.launcher: {error}") from None
        return executor

    def _wait(self, open_jobs: list[submitit.SlurmJob[str | None]], signals: Signals) -> list[str]:
        """Until a signal, or each job has left a result or the queue; a line for each that had trouble."""
        troubles: list[str] = []
        states: dict[str, str] = {}
        left_at: dict[str, float] = {}
        while open_jobs and signals.received is None:
            signals.sleep(self._poll_seconds)
            try:
                queue = _queue()
            except RunError as error:
                print(f"{error}; the jobs go on", flush=True)
                continue
            for job in list(open_jobs):
                number = job.job_id
                if number in queue:
                    name, state = queue[number]
                    if states.get(number) != state:
                        print(f"{name}: {state.lower()}", flush=True)
                    states[number] = state
                else:
                    left_at.setdefault(number, time.monotonic())
                has_result = job.paths.result_pickle.exists()
                if has_result or time.monotonic() - left_at.get(number, math.inf) > RESULT_SECONDS:
                    open_jobs.remove(job)
                    troubles += _trouble(job, has_result)
        return troubles


def _submit(executor: submitit.SlurmExecutor, job: Job) -> submitit.SlurmJob[str | None]:
    from submitit.core.utils import FailedJobError

    executor.update_parameters(job_name=job.name)
    try:
        return executor.submit(SlurmJob(), job.config)
    except FailedJobError as error:
        raise RunError(f"sbatch: {str(error).splitlines()[-1]}") from None


def _trouble(job: submitit.SlurmJob[str | None], has_result: bool) -> list[str]:
    if not has_result or job.exception() is not None:
        return [f"Slurm job {job.job_id} ended without a result; its log is {job.paths.stderr}"]
    trouble = job.result()
    return [f"Slurm job {job.job_id}: {trouble}"] if trouble else []


def _queue() -> dict[str, tuple[str, str]]:
    """Name and state of this user's unfinished jobs, by their number.

    Raises:
        RunError: squeue is missing or fails.
    """
    # A name may hold anything, and comes last; what follows a line break in it is no job.
    command = ["squeue", f"--user={getpass.getuser()}", "--noheader", "--format=%i|%T|%j"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError) as error:
        raise RunError(f"squeue: {getattr(error, 'stderr', '') or error}") from None
    jobs = (fields for line in lines if len(fields := line.split("|", 2)) == 3)
    return {number: (name, state) for number, state, name in jobs}
