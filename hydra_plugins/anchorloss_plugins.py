"""Two small Hydra plugins, found by Hydra because they are in `hydra_plugins`.

The sweeper is Hydra's own, but composes and checks every job first, and writes nothing. The launcher trains all jobs
of a sweep as one plan in this process, so that runs of different losses can go side by side; the other launchers
(Slurm, Ray) take its place by `hydra/launcher=…`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, flag_override

from anchorloss.sweep.plan import plan, train_all


class CheckedSweeper(BasicSweeper):
    """Hydra's basic sweeper, with the whole sweep checked before any of it is launched."""

    def __init__(self, params: dict[str, str] | None = None) -> None:
        super().__init__(max_batch_size=None, params=params)

    def sweep(self, arguments: list[str]) -> Any:
        assert self.hydra_context is not None
        assert self.config is not None
        assert self.launcher is not None
        loader = self.hydra_context.config_loader
        parser = OverridesParser.create(config_loader=loader)
        (jobs,) = self.split_arguments(parser.parse_overrides([*self._parse_config(), *arguments]), None)
        config = self.config
        plan([_job_config(loader.load_sweep_config(config, list(job))) for job in jobs])
        results = self.launcher.launch(jobs, initial_job_idx=0)
        for result in results:
            _ = result.return_value  # raises what the job raised
        return results


class InProcessLauncher(Launcher):
    """Trains the jobs of a sweep together, in this process."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._loader = hydra_context.config_loader
        self._config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        configs = [self._loader.load_sweep_config(self._config, list(job)) for job in job_overrides]
        train_all([_job_config(config) for config in configs])
        done = [
            JobReturn(overrides=list(job), cfg=config)
            for job, config in zip(job_overrides, configs, strict=True)
        ]
        for job in done:
            job.status = JobStatus.COMPLETED
            job.return_value = None
        return done


def _job_config(config: DictConfig) -> DictConfig:
    config = config.copy()
    with flag_override(config, ["struct", "readonly"], False):
        del config["hydra"]
    return config
