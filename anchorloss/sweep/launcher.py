"""What all launchers of a sweep do: compose its jobs, have them trained, and tell Hydra that they are."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, flag_override

from anchorloss.sweep.plan import train_all


def without_hydra(config: DictConfig) -> DictConfig:
    """A copy of a sweep's config without Hydra's own part, as `parse` takes it; its keys may be set."""
    config = config.copy()
    with flag_override(config, ["struct", "readonly"], False):
        del config["hydra"]
    return config


class SweepLauncher(Launcher):
    """A Hydra launcher that trains the jobs of a sweep together, in this process."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """What Hydra calls before `launch`."""
        self._loader = hydra_context.config_loader
        self._config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """What Hydra calls with the overrides of each job."""
        configs = [self._loader.load_sweep_config(self._config, list(job)) for job in job_overrides]
        self.train([without_hydra(config) for config in configs])
        return [
            JobReturn(list(job), config, status=JobStatus.COMPLETED)
            for job, config in zip(job_overrides, configs, strict=True)
        ]

    def train(self, configs: list[DictConfig]) -> None:
        """Train the runs of all jobs as one plan; errors as in `train_all`."""
        train_all(configs)
