"""The paper: its Table 1, its full protocol, and which experiments ask its question. All that is about it is said here.

An experiment that is not in `EXPERIMENTS` has no paper: its tables show its own runs alone. To reproduce another paper,
replace this file and its table.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from anchorloss.errors import UserError
from anchorloss.runs.differences import describe_difference

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
QUESTION = "Does anchor loss beat BCE on CIFAR-100?"
REFERENCE = "bce"
LOSSES = (REFERENCE, "anchor_target", "anchor_bg", "anchor_both")
# By loss: its label, and mean and standard deviation of Top-1 and Top-5 in percent. How many runs are behind them is not
# known.
TABLE1 = pd.read_csv(Path(__file__).with_name("paper_table1.csv"), index_col="loss")
# The settings of experiment=table1; loss, seed and precision aside, which docs/protocol.md leaves open.
FULL = "table1"
FULL_PROTOCOL: dict[str, Any] = {
    "model": {"name": "resnet110", "shortcut": "A", "prior_bias": True},
    "data": {
        "name": "cifar100",
        "validation": 0,
        "validation_seed": 0,
        "evaluate_on": "test",
        "training_images": None,
        "test_images": None,
    },
    "optim": {
        "epochs": 200,
        "batch_size": 128,
        "lr": 0.1,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 1e-4,
        "schedule": "step",
        "decay_at": [0.8, 0.9],
        "decay_factor": 10.0,
        "lr_warmup_epochs": 1.0,
        "softmax_warmup_epochs": 0,
        "evaluate_every": 1,
    },
}
MODULATION = {"gamma": 0.5, "slack": 0.0}
# How often a run is evaluated changes no result; where it is evaluated has a stamp of its own.
FREE = ("optim.evaluate_every", "data.name", "data.evaluate_on", "data.validation_seed")
# The published Top-1 difference of (ii), which the amendment in docs/protocol.md takes as the margin of equivalence.
MARGIN = 0.37


class Question(NamedTuple):
    """What was fixed before the runs of an experiment.

    Attributes:
        measures: The measures whose comparison was planned; any other, and any loss that the paper does not have, is
            exploratory.
        beside: The experiment whose runs stand beside its own in `make_table1.py --by`.
        amended: Whether the amendment of docs/protocol.md applies once every planned seed is whole.
    """

    measures: tuple[str, ...] = ("top1", "top5")
    beside: str | None = None
    amended: bool = False


EXPERIMENTS = {
    FULL: Question(),
    "table1_resnet20": Question(measures=("top1", "top5", "ece"), amended=True),
    "table1_small": Question(),
    "lr_resnet20": Question(measures=()),
    "ablation_small": Question(measures=(), beside="table1_small"),
    "precision_small": Question(measures=(), beside="table1_small"),
    "precision_synthetic": Question(measures=()),
    "select_small": Question(measures=()),
    "sanity_resnet20": Question(measures=()),
    "sanity_resnet110": Question(measures=()),
    "sanity_resnet110_warmup": Question(measures=()),
    "quickstart": Question(),
    "look": Question(),
    "smoke": Question(),
}


class Plan(NamedTuple):
    """The losses and seeds that an experiment's config sweeps over; empty where it plans nothing."""

    losses: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()


NO_PLAN = Plan()


def published(experiment: str, data_label: str) -> pd.DataFrame:
    """Return the paper's `TABLE1` for an experiment of the paper on CIFAR-100 or the synthetic set; else no row of it."""
    return (
        TABLE1 if experiment in EXPERIMENTS and data_label in ("CIFAR-100", "SYNTHETIC") else TABLE1.iloc[:0]
    )


def label(loss: str) -> str:
    """Return what a loss is called: as the paper calls it, else by its name."""
    return str(TABLE1["label"].get(loss, loss.replace("_", " ")))


def departures(settings: Mapping[str, Any]) -> list[str]:
    """List the settings of a run that are not the full protocol's, as `optim.lr 0.5`."""
    difference = describe_difference(FULL_PROTOCOL, {key: settings.get(key, {}) for key in FULL_PROTOCOL})
    own = settings.get("loss", {})
    said = [f"{key} {now}" for key, (_, now) in difference.items() if key not in FREE]
    if own.get("anchor", "none") != "none":
        known = {"name", "function", "anchor"}
        said += [
            f"loss.{key} {value}"
            for key, value in own.items()
            if key not in known and MODULATION.get(key) != value
        ]
    return said


def stamps(runs: pd.DataFrame) -> list[str]:
    """List what the title of these runs says of them: synthetic data, held-out images, and for an experiment of the paper
    why its numbers cannot be compared with the paper's; empty at the full protocol.
    """
    first = runs.iloc[0]
    of_paper, data = first["experiment"] in EXPERIMENTS, first["dataset.label"]
    said = [f"{data} data"] if data == "SYNTHETIC" or (of_paper and data != "CIFAR-100") else []
    other = sorted({departure for settings in runs["settings"] for departure in departures(settings)})
    if of_paper and (other or first["experiment"] != FULL):
        coarse = any(departure.startswith(("model.name ", "optim.epochs ")) for departure in other)
        size = f"{first['model']}, {first['epochs']:.0f} epochs"
        said.append(f"NOT THE FULL PROTOCOL ({size if coarse or not other else ', '.join(other)})")
    if first["evaluated_on"] != "test":
        said.append("evaluated on held-out VALIDATION images")
    return said


def interim(runs: pd.DataFrame, plan: Plan) -> str:
    """Say "interim, 3 of 10 seeds complete" while planned seeds are missing; empty once all are there, or without a plan.

    A seed counts when its runs of all planned losses have ended, finished or failed.
    """
    ended = runs[runs["state"].isin(["finished", "failed"])]
    there = set(zip(ended["loss"], ended["seed"], strict=True))
    complete = sum(all((loss, seed) in there for loss in plan.losses) for seed in plan.seeds)
    return f"interim, {complete} of {len(plan.seeds)} seeds complete" if complete < len(plan.seeds) else ""


def planned(experiment: str) -> Plan:
    """Return what configs/experiment/<experiment>.yaml plans: nothing if it is not there, or sweeps over no loss.

    Raises:
        UserError: The file is not a config, or its sweep over losses is not written as `a,b,c`.
    """
    path = CONFIGS / "experiment" / f"{experiment}.yaml"
    if not path.is_file():
        return NO_PLAN
    config = _read(path)
    swept: Any = config
    for key in ("hydra", "sweeper", "params", "loss"):
        swept = swept.get(key) if isinstance(swept, dict) else None
    # An experiment that starts from another one sweeps over the same losses unless it says otherwise.
    bases = [planned(name).losses for name in config.get("defaults", ()) if isinstance(name, str)]
    losses = _names(path, swept) if swept else next(filter(None, bases), ())
    seeds = config.get("seeds")
    return Plan(losses, tuple(seeds)) if losses and isinstance(seeds, list) else NO_PLAN


def _read(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a config ({' '.join(str(error).split())})") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: not a config; write `key: value` lines in YAML")
    return config


def _names(path: Path, losses: Any) -> tuple[str, ...]:
    """The names that runs of the swept loss configs, `bce,mine`, have."""
    options = [name.strip() for name in losses.split(",")] if isinstance(losses, str) else []
    if not options or not all(name.replace("_", "").isalnum() for name in options):
        raise UserError(f"{path}: hydra.sweeper.params.loss={losses}: write it as bce,anchor_bg")
    files = {name: CONFIGS / "loss" / f"{name}.yaml" for name in options}
    return tuple(
        str(_read(file).get("name", name)) if file.is_file() else name for name, file in files.items()
    )
