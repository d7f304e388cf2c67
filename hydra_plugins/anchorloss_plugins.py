"""Sweeps, for Hydra, which instantiates its plugins from this package alone: what they do is in `anchorloss.sweep`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, flag_override

from anchorloss.config.hydra_errors import check_overrides
from anchorloss.errors import UserError


class CheckedSweeper(Sweeper):
    """Makes a job of each combination of the swept values; writes nothing."""

    def __init__(self, params: dict[str, str] | None) -> None:
        """Take the key of configs/hydra/sweeper/checked.yaml: the values to sweep over, by key of the config."""
        self._params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """What Hydra calls before `sweep`."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        """Have the jobs of the command line and of `params` launched.

        Raises:
            UserError: an override is wrong.
        """
        assert self.launcher is not None
        assert self.hydra_context is not None
        params = [f"{key}={value}" for key, value in self._params.items()]
        check_overrides(params)
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        choices: dict[str, list[str]] = {}
        for override in parser.parse_overrides([*params, *arguments]):
            key = override.get_key_element()
            if override.is_sweep_override() and not override.is_discrete_sweep():
                raise UserError(f"{override.input_line}: cannot be swept; write the values out, as {key}=a,b")
            swept = override.is_sweep_override()
            values = override.sweep_string_iterator() if swept else [override.get_value_element_as_str()]
            choices[key] = [f"{key}={value}" for value in values]
        return self.launcher.launch(list(itertools.product(*choices.values())), 0)


class SweepLauncher(Launcher):
    """Composes each job once and hands all of them to `workers.launch`, as one plan."""

    def __init__(self, **settings: Any) -> None:
        """Take the keys of a config in configs/hydra/launcher/."""
        self._settings: Any = OmegaConf.to_container(OmegaConf.create(settings), resolve=True)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """What Hydra calls before `launch`."""
        self._loader, self._config = hydra_context.config_loader, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """What Hydra calls with the overrides of each job."""
        from anchorloss.sweep.workers import launch  # takes a moment that `--help` does not need

        configs = [self._loader.load_sweep_config(self._config, list(job)) for job in job_overrides]
        for config in configs:
            with flag_override(config, ["struct", "readonly"], False):
                del config["hydra"]
        launch(self._config.hydra.runtime.choices["hydra/launcher"], self._settings, configs)
        return []
