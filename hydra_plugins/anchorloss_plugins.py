"""Two small Hydra plugins, found by Hydra because they are in `hydra_plugins`.

The sweeper is Hydra's own, but composes and checks every job first, and writes nothing. The launcher trains all jobs
of a sweep as one plan in this process, so that runs of different losses can go side by side; the other launchers
(Slurm, Ray) take its place by `hydra/launcher=…`.
"""

from __future__ import annotations

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from anchorloss.sweep.launcher import SweepLauncher, without_hydra
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
        plan([without_hydra(loader.load_sweep_config(config, list(job))) for job in jobs])
        results = self.launcher.launch(jobs, initial_job_idx=0)
        for result in results:
            _ = result.return_value  # raises what the job raised
        return results


class InProcessLauncher(SweepLauncher):
    """Trains the jobs of a sweep together, in this process."""

    def train(self, configs: list[DictConfig]) -> None:
        """Train the runs as one plan."""
        train_all(configs)
