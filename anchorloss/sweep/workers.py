"""Sweeps elsewhere than in this process: a launcher starts workers and waits, and the records say what has come of it.

A worker is the same command with `hydra/launcher=here`. Any number of workers may share a sweep, be killed, requeued or
started twice: the claims on the run folders see to it that each run is trained once.
"""

from __future__ import annotations

import getpass
import hashlib
import math
import os
import re
import runpy
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig
from pydantic import ConfigDict, Field, ValidationError, validate_call

from anchorloss.config.settings import Execution, RunSettings, first_problem
from anchorloss.errors import RunError, UserError
from anchorloss.sweep.plan import plan, read_records, set_failed_aside
from anchorloss.sweep.signals import Signals
from anchorloss.terminal import counted

Count = Annotated[int, Field(ge=0, le=1024)]
Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Work:
    """What workers are to do: the runs that are left, of jobs of so many combinations, and a worker's command line.

    The name is the same for the same sweep in the same results folder, so that queued workers are found again.
    """

    name: str
    runs: list[RunSettings]
    execution: Execution
    combinations: int
    arguments: list[str]

    def command(self, workers: int, *more: str) -> list[str]:
        """The arguments of each of so many workers. None claims more than its share, or the last would get nothing."""
        set_failed_aside(self.runs, self.execution)
        return [*self.arguments, f"hydra.launcher.share={math.ceil(len(self.runs) / workers)}", *more]


def launch(launcher: str, settings: Mapping[str, Any], configs: list[DictConfig]) -> None:
    """Train the runs of a sweep's jobs, as `hydra/launcher=<launcher>` with these settings does.

    Raises:
        UserError: a setting is wrong, or the engine is not there; nothing has begun.
        RunError: runs are left without a record.
        SystemExit: with status 1 if runs failed, with 128 + n after signal n.
    """
    # They import torch, which `--help` does not need.
    from anchorloss.sweep.executor import train_all
    from anchorloss.sweep.messages import conclude, left_to_do

    if launcher == "here" or (configs[:1] and configs[0].dry_run):
        train_all(configs, settings.get("share"))
        return

    runs, execution = plan(configs)
    left = left_to_do(runs, execution, where="")
    engine, answer = ENGINES[launcher]
    troubles: list[str] = []
    with Signals(answer) as signals:
        if left:
            # Workers use the code that stands beside the script, whichever is installed.
            own = str(Path(sys.argv[0]).resolve().parent), os.environ.get("PYTHONPATH")
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, own))
            identity = "\n".join([str(execution.results_dir.resolve()), *sorted(run.run for run in runs)])
            name = f"{runs[0].experiment}-{hashlib.sha256(identity.encode()).hexdigest()[:10]}"
            work = Work(name, left, execution, len(configs), _arguments(configs, runs[0].precision))
            try:
                troubles = validate_call(config=STRICT)(engine)(work, signals, **settings)
            except ValidationError as error:
                key, value, text = first_problem(error)
                raise UserError(f"hydra.launcher.{key}={value}: {text}") from None
        records = read_records(runs, execution)
        missing = [run.run for run in runs if run.run not in records]
        if missing and signals.received is not None:
            signals.pass_on()
    for trouble in troubles:
        print(trouble, file=sys.stderr)
    unfinished = f"{len(missing)} of {counted(len(runs), 'run')}"
    if missing and (troubles or not execution.minutes):
        raise RunError(
            f"{unfinished} without a record: {', '.join(missing)}; the same command goes on with them"
        )
    if missing:
        print(f"{unfinished} unfinished: give the same command again to go on")
    conclude(runs, records)


def _arguments(configs: Sequence[DictConfig], precision: str) -> list[str]:
    """The command line of a worker: this command's, and what another machine would decide or understand otherwise.

    Raises:
        UserError: `precision=auto` is swept beside other values.
    """
    others = [argument for argument in sys.argv[1:] if not re.match(r"[+~]*hydra[./]launcher\b", argument)]
    fixed = {"results_dir": str(Path(configs[0].results_dir).resolve())}
    if len(roots := {config.data.root for config in configs}) == 1:
        fixed["data.root"] = str(Path(roots.pop()).resolve())
    if "auto" in (asked := {config.precision for config in configs}):
        if len(asked) > 1:
            raise UserError("precision=auto: each worker would decide it; sweep over fp32 and bf16")
        print(f"precision={precision} in every worker, as this machine would choose for itself")
        fixed["precision"] = precision
    values = [f"{key}={QuotedString(value, Quote.single).with_quotes()}" for key, value in fixed.items()]
    # What has failed was set aside already.
    return [*others, "hydra/launcher=here", "retry_failed=false", *values]


def processes(work: Work, signals: Signals, count: Count) -> list[str]:
    """Start workers on this machine and wait for them; a signal is passed on. Returns a line for each with trouble.

    On GPUs each sees its own; on a CPU each computes with one thread, because networks this small gain less from a second
    thread than from a second run.
    """
    import torch

    from anchorloss.device import resolve_device
    from anchorloss.sweep.side_by_side import cores

    device = resolve_device(work.execution.device)
    # One GPU by its number, as in device=cuda:1, is for one process.
    is_shared = device.type == "cuda" and device.index is None
    gpus = gpu_names(torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")) if is_shared else []
    workers = min(count or len(gpus) or (cores() if device.type == "cpu" else 1), len(work.runs))
    has_threads = device.type != "cpu" or work.execution.threads
    command = [sys.executable, sys.argv[0], *work.command(workers, *[] if has_threads else ["threads=1"])]
    started = []
    for place in range(workers):
        own = {"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]} if gpus else {}
        started.append(subprocess.Popen(command, env={**os.environ, **own, "TQDM_POSITION": str(place + 1)}))
    while signals.received is None and any(worker.poll() is None for worker in started):
        signals.sleep(0.1)
    if signals.received is not None:
        for worker in started:
            worker.send_signal(signals.received)
    ended = [worker.wait() for worker in started]
    return [f"process {place} ended with status {status}" for place, status in enumerate(ended) if status]


def slurm(
    work: Work,
    signals: Signals,
    folder: str,
    count: Count,
    poll_seconds: Positive,
    max_timeouts: Annotated[int, Field(ge=0)],
    **parameters: Any,
) -> list[str]:
    """Submit those workers that Slurm has not in its queue yet, and wait until none is left there, or for a signal.

    `parameters` are those of submitit's SlurmExecutor. Returns a line for each worker with trouble.
    """
    try:
        import submitit
        from submitit.core.utils import FailedJobError

        executor = submitit.SlurmExecutor(folder, max_num_timeout=max_timeouts)
        set_parameters = {key: value for key, value in parameters.items() if value is not None}
        executor.update_parameters(job_name=work.name, **set_parameters)
    except ImportError:
        raise UserError("hydra/launcher=slurm: needs submitit; pip install -e '.[slurm]'") from None
    except RuntimeError:
        raise UserError("hydra/launcher=slurm: there is no `srun` here; use a Slurm cluster") from None
    except ValueError as error:
        raise UserError(f"hydra.launcher: {error}") from None
    workers = min(count or work.combinations, len(work.runs))
    jobs = [executor.job_class(executor.folder, number) for number in _queued(work.name)]
    before = len(jobs)
    command = work.command(workers)
    while len(jobs) < workers and signals.received is None:
        try:
            jobs.append(executor.submit(SlurmWorker(), command, sys.argv[0], str(Path.cwd())))
        except FailedJobError as error:
            raise RunError(f"sbatch: {str(error).splitlines()[-1]}") from None
    for place, job in enumerate(jobs):
        print(f"{work.name}: Slurm job {job.job_id}{', queued before' * (place < before)}", flush=True)
    said = states = Counter(["submitted"])
    while states and signals.received is None:
        if states != said:
            print(
                f"{work.name}: {', '.join(f'{n} {state.lower()}' for state, n in states.items())}", flush=True
            )
        said = states
        signals.sleep(poll_seconds)
        try:
            states = Counter(_queued(work.name).values())
        except RunError as error:
            print(f"{error}; the jobs go on", flush=True)
    if signals.received is not None:
        return []
    lost = [job for job in jobs if not job.paths.result_pickle.exists() or job.exception() is not None]
    troubles = [f"Slurm job {job.job_id}: {job.result()}" for job in jobs if job not in lost and job.result()]
    return troubles + [
        f"Slurm job {job.job_id} ended without a result; log: {job.paths.stderr}" for job in lost
    ]


class SlurmWorker:
    """What a Slurm node calls. submitit calls `checkpoint` when the time limit nears, and requeues the job."""

    def __call__(self, *command: Any) -> str | None:
        try:
            return work_here(*command)
        except SystemExit as end:
            if end.code == 128 + signal.SIGTERM and _is_being_preempted():
                # Slurm requeues a job that is still there when its grace time ends, and forgets one that has left.
                subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
            raise

    def checkpoint(self, *command: Any) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *command)


def ray(
    work: Work,
    signals: Signals,
    address: str,
    count: Count,
    num_cpus: Annotated[float, Field(ge=0)],
    num_gpus: Annotated[float, Field(ge=0)],
) -> list[str]:
    """Start workers as Ray tasks and wait for them; after a signal they stop. Returns a line for each with trouble.

    When a node dies, Ray starts its tasks on another one, as often as necessary.
    """
    try:
        import ray
    except ImportError:
        raise UserError("hydra/launcher=ray: needs Ray; pip install -e '.[ray]'") from None
    try:
        environment = {"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}}
        ray.init(address=address, log_to_driver=False, logging_level="error", runtime_env=environment)
    except ConnectionError:
        raise UserError(
            f"hydra.launcher.address={address}: no Ray answers there; `ray start --head` starts one, "
            "address=local one for this command alone"
        ) from None
    try:
        # A worker's process ends with it, as it would from the command line.
        task = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, max_calls=1, max_retries=-1)(work_here)
        workers = min(count or work.combinations, len(work.runs))
        command = work.command(workers), sys.argv[0], str(Path.cwd())
        pending = {task.remote(*command): f"worker {place}" for place in range(workers)}
        troubles = []
        while pending and signals.received is None:
            for ended in ray.wait(list(pending), timeout=0.5)[0]:
                worker = pending.pop(ended)
                try:
                    trouble = ray.get(ended)
                except ray.exceptions.RayError as error:
                    trouble = str(error).splitlines()[-1]
                print(f"{worker} has ended", flush=True)
                troubles += [f"{worker}: {trouble}"] if trouble else []
        return troubles
    finally:
        ray.shutdown()


STRICT = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
# Each engine, and what it answers to Ctrl-C at once.
ENGINES: dict[str, Any] = {
    "processes": (processes, "stopping after this step"),
    "slurm": (slurm, "the jobs go on in Slurm, and the same command waits for them again"),
    "ray": (ray, "stopping"),
}


def work_here(arguments: list[str], script: str, folder: str) -> str | None:
    """Be a worker, in this process: what a node calls. After a signal it raises SystemExit.

    Returns:
        None when all is well; else the line that says why not.
    """
    os.chdir(folder)
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        if end.code not in (1, 2):
            raise
        return " ".join(str(end.__cause__ or f"status {end.code}").split())
    return None


def gpu_names(count: int, visible: str | None) -> list[str]:
    """The name of each of `count` GPUs in CUDA_VISIBLE_DEVICES, whose present value is `visible`, None where not set."""
    names = visible.split(",") if visible else map(str, range(count))
    return [name.strip() for name in names][:count]


def _queued(name: str) -> dict[str, str]:
    """The state of each of this user's unfinished Slurm jobs of a name, by its number.

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
    return {number: state for number, state, job in jobs if job == name}


def _is_being_preempted() -> bool:
    """Whether the SIGTERM means pre-emption, rather than `scancel` or a requeue that Slurm sees to itself."""
    command = ["scontrol", "show", "job", os.environ["SLURM_JOB_ID"]]
    words = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return "JobState=RUNNING" in words and "PreemptTime=None" not in words
