"""The default sweeper and launcher. Hydra finds them because they are in `hydra_plugins`.

The launcher trains all jobs of a sweep as one plan in this process, so that runs of different losses can train side by
side. `hydra/launcher=` chooses another one.
"""

from __future__ import annotations

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from anchorloss.config.hydra_errors import check_overrides
from anchorloss.sweep.launcher import SweepLauncher, without_hydra
from anchorloss.sweep.plan import plan


class CheckedSweeper(BasicSweeper):
    """Hydra's basic sweeper, which first composes and checks the whole sweep, and writes nothing."""

    def __init__(self, params: dict[str, str] | None) -> None:
        """Take the key of configs/hydra/sweeper/checked.yaml: the values to sweep over, by key of the config."""
        super().__init__(max_batch_size=None, params=params)

    def sweep(self, arguments: list[str]) -> Any:
        """Check every job, then launch all of them; return Hydra's `JobReturn` of each.

        Raises:
            UserError: A job's config is wrong; nothing has been launched.
        """
        assert self.hydra_context is not None
        assert self.config is not None
        assert self.launcher is not None
        loader = self.hydra_context.config_loader
        params = self._parse_config()
        check_overrides(params)
        parser = OverridesParser.create(config_loader=loader)
        (jobs,) = self.split_arguments(parser.parse_overrides([*params, *arguments]), None)
        config = self.config
        plan([without_hydra(loader.load_sweep_config(config, list(job))) for job in jobs])
        results = self.launcher.launch(jobs, initial_job_idx=0)
        for result in results:
            _ = result.return_value  # raises what the job raised
        return results


class InProcessLauncher(SweepLauncher):
    """A `SweepLauncher` where Hydra looks for plugins."""
