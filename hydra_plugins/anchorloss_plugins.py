"""The default sweeper and launcher. Hydra finds them because they are in `hydra_plugins`.

The sweeper is Hydra's own, but composes and checks every job first, and writes nothing. The launcher trains all jobs
of a sweep as one plan in this process, so that runs of different losses can train side by side. `hydra/launcher=` chooses
another one.
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
        """Create it; Hydra calls this.

        Args:
            params: Override key -> values to sweep over, as in `{"loss": "bce,anchor_bg"}`.
        """
        super().__init__(max_batch_size=None, params=params)

    def sweep(self, arguments: list[str]) -> Any:
        """Check every job, then launch all of them.

        Args:
            arguments: The overrides of the command line.

        Returns:
            Hydra's `JobReturn` of each job.

        Raises:
            UserError: A job's config is wrong; nothing has been launched.
        """
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
        """Train the runs of all jobs as one plan; errors as in `anchorloss.sweep.plan.train_all`."""
        train_all(configs)
