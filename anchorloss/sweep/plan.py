"""From composed configs to a plan of runs, checked completely before the first run starts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from anchorloss.config.identity import RunSettings
from anchorloss.config.parsing import parse
from anchorloss.config.settings import DATA_SETS, Config, Execution
from anchorloss.errors import UserError


def register_schema() -> None:
    """Make `Config` known to Hydra as the config `schema`, on which `configs/config.yaml` builds."""
    ConfigStore.instance().store(name="schema", node=Config)


def plan(configs: Sequence[DictConfig]) -> tuple[list[RunSettings], Execution]:
    """The runs of several jobs as one plan, seed by seed, so that an early stop leaves complete comparisons.

    Raises:
        UserError: a setting is wrong, a loss refuses its arguments, or the jobs differ in how or where they are to train.
    """
    from anchorloss.training.build import check, distinct_code  # imports torch, which `--help` does not need

    if not configs:
        raise UserError("the sweep names no job; give every swept key at least one value")
    jobs = [parse(config) for config in configs]
    _refuse_swept("experiment.name", [runs[0].experiment for runs, _ in jobs])
    for field in fields(Execution):
        _refuse_swept(field.name, [getattr(execution, field.name) for _, execution in jobs])
    for run in distinct_code(runs[0] for runs, _ in jobs):
        if run.data.function is None:
            check(run, DATA_SETS[run.data.name]["classes"])
    unique = {run.run: run for runs, _ in jobs for run in runs}
    return sorted(unique.values(), key=lambda run: run.seed), jobs[0][1]


def _refuse_swept(key: str, values: list[Any]) -> None:
    """Refuse a key that all jobs of a sweep share and that has several values."""
    if any(value != values[0] for value in values):
        different = ",".join(dict.fromkeys(map(str, values)))
        raise UserError(f"{key}={different}: cannot be swept; give the command once for each value")


def train_all(configs: Sequence[DictConfig]) -> None:
    """Check the jobs and train their runs in this process.

    Raises:
        UserError, RunError, SystemExit: as `plan` and `executor.execute`.
    """
    begun = time.monotonic()
    runs, execution = plan(configs)
    if execution.dry_run:
        from anchorloss.sweep.messages import list_plan

        list_plan(runs, execution)
        return
    from anchorloss.sweep.executor import execute

    execute(runs, execution, begun)
