"""The full protocol, the runs that an experiment's config plans, and which of them are missing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from anchorloss.config.identity import LossSettings, RunSettings
from anchorloss.config.settings import DataSettings, ModelSettings, OptimSettings
from anchorloss.errors import UserError
from anchorloss.runs.differences import describe_difference
from anchorloss.runs.folder import Record, RunFolder

EXPERIMENTS = Path(__file__).resolve().parents[2] / "configs" / "experiment"
FULL = "table1"
# The identity of its runs; loss, seed and precision aside, which docs/protocol.md leaves open. A test compares it with
# configs/experiment/table1.yaml.
_TABLE1 = RunSettings(
    experiment=FULL,
    loss=LossSettings("", "", {}),
    model=ModelSettings("resnet110"),
    data=DataSettings("cifar100"),
    optim=OptimSettings(lr_warmup_epochs=1.0),
    precision="",
    seed=0,
).identity()
FULL_PROTOCOL: dict[str, Any] = {key: _TABLE1[key] for key in ("model", "data", "optim")}
MODULATION = {"gamma": 0.5, "slack": 0.0}
# How often a run is evaluated changes no result; where it is evaluated has a stamp of its own.
_FREE = ("optim.evaluate_every", "data.name", "data.evaluate_on", "data.validation_seed")


@dataclass(frozen=True)
class Plan:
    """The losses and seeds that an experiment's config sweeps over."""

    losses: tuple[str, ...]
    seeds: tuple[int, ...]


def departures(record: Record) -> list[str]:
    """List the settings of a record that are not the full protocol's, as `optim.lr 0.5`."""
    identity = {key: record.identity.get(key, {}) for key in FULL_PROTOCOL}
    difference = describe_difference(FULL_PROTOCOL, identity)
    own = record.identity.get("loss", {})
    said = [f"{key} {now}" for key, (_, now) in difference.items() if key not in _FREE]
    if own.get("anchor", "none") != "none":
        known = {"name", "function", "anchor"}
        said += [
            f"loss.{key} {value}"
            for key, value in own.items()
            if key not in known and MODULATION.get(key) != value
        ]
    return said


def interim(runs: Iterable[RunFolder], plan: Plan | None) -> str | None:
    """Say "interim, 3 of 10 seeds complete" while planned seeds are missing; None once all are there.

    A seed counts when its runs of all planned losses have ended, finished or failed. Without a plan nothing is missing.
    """
    if plan is None:
        return None
    ended = {(run.loss, run.seed) for run in runs if run.record is not None}
    complete = sum(all((loss, seed) in ended for loss in plan.losses) for seed in plan.seeds)
    return f"interim, {complete} of {len(plan.seeds)} seeds complete" if complete < len(plan.seeds) else None


def planned(experiment: str) -> Plan | None:
    """What configs/experiment/<experiment>.yaml plans; None if there is no such file or it sweeps over no loss.

    Raises:
        UserError: the file is not a config, or its sweep over losses cannot be read.
    """
    path = EXPERIMENTS / f"{experiment}.yaml"
    if not path.is_file():
        return None
    config = _read(path)
    swept: Any = config
    for key in ("hydra", "sweeper", "params", "loss"):
        swept = swept.get(key) if isinstance(swept, dict) else None
    # An experiment that starts from another one sweeps over the same losses unless it says otherwise.
    bases = [planned(name) for name in config.get("defaults", ()) if isinstance(name, str)]
    losses = _names(path, swept) if swept else next((base.losses for base in bases if base), ())
    seeds = config.get("seeds")
    return Plan(losses, tuple(seeds)) if losses and isinstance(seeds, list) else None


def _read(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a config ({' '.join(str(error).split())})") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: not a config; write `key: value` lines in YAML")
    return config


def _names(path: Path, losses: Any) -> tuple[str, ...]:
    """The names that runs of the swept loss configs have: `bce,mine` or `choice(bce,mine)` in Hydra's syntax."""
    try:
        if not isinstance(losses, str):
            raise TypeError
        swept = OverridesParser.create().parse_override(f"loss={losses}")
        values: list[Any] = list(swept.sweep_iterator()) if swept.is_sweep_override() else [swept.value()]
        options = [value if isinstance(value, str) else value.text for value in values]
    except (TypeError, AttributeError, HydraException):
        raise UserError(f"{path}: hydra.sweeper.params.loss={losses}: write it as bce,anchor_bg") from None
    files = {option: EXPERIMENTS.parent / "loss" / f"{option}.yaml" for option in options}
    return tuple(
        _read(file).get("name", option) if file.is_file() else option for option, file in files.items()
    )
