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

from anchorloss.config.settings import PAPER_LOSSES
from anchorloss.errors import UserError
from anchorloss.runs.differences import describe_difference

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
QUESTION = "Does anchor loss beat BCE on CIFAR-100?"
REFERENCE = "bce"
LOSSES = tuple(PAPER_LOSSES)
# By loss: its label, mean and standard deviation of Top-1 and Top-5 in percent. From how many runs is not known.
TABLE1 = pd.read_csv(Path(__file__).with_name("paper_table1.csv"), index_col="loss")
FULL = "table1"
# The settings of experiment=table1; loss, seed and precision aside, which docs/protocol.md leaves open.
FULL_PROTOCOL: dict[str, Any] = yaml.safe_load("""
model: {name: resnet110, shortcut: A, prior_bias: true}
data: {name: cifar100, training_images: null, test_images: null, validation: 0, validation_seed: 0, evaluate_on: test}
optim: {epochs: 200, batch_size: 128, lr: 0.1, momentum: 0.9, nesterov: false, weight_decay: 1.0e-4, schedule: step,
  decay_at: [0.8, 0.9], decay_factor: 10.0, lr_warmup_epochs: 1.0, softmax_warmup_epochs: 0, evaluate_every: 1}
""")
MODULATION = {"gamma": 0.5, "slack": 0.0}
# How often a run is evaluated changes no result; where it is evaluated has a stamp of its own.
FREE = ("optim.evaluate_every", "data.name", "data.evaluate_on", "data.validation_seed")
# The published Top-1 difference of (ii), which the amendment in docs/protocol.md takes as the margin of equivalence.
MARGIN = 0.37


class Question(NamedTuple):
    """What was fixed before the runs of an experiment.

    Attributes:
        planned: The measures to compare the paper's losses in; any other comparison is exploratory.
        beside: The experiment whose runs stand beside its own in a table by settings or precision.
        amended: Whether the amendment of docs/protocol.md applies once every planned seed is whole.
    """

    planned: tuple[str, ...] = ()
    beside: str | None = None
    amended: bool = False


EXPERIMENTS = {
    **dict.fromkeys((FULL, "table1_small", "smoke", "look"), Question(("top1", "top5"))),
    "table1_resnet20": Question(("top1", "top5", "ece"), amended=True),
    **dict.fromkeys(("ablation_small", "precision_small"), Question(beside="table1_small")),
    **dict.fromkeys(("lr_resnet20", "select_small", "sanity_resnet20"), Question()),
    **dict.fromkeys(("sanity_resnet110", "sanity_resnet110_warmup"), Question()),
}


class Plan(NamedTuple):
    """The losses and seeds that an experiment's config sweeps over; empty where it plans nothing."""

    losses: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()


NO_PLAN = Plan()


def published(experiment: str, data_label: str) -> pd.DataFrame:
    """Return `TABLE1` for an experiment of the paper on CIFAR-100; else no row of it."""
    return TABLE1 if experiment in EXPERIMENTS and data_label == "CIFAR-100" else TABLE1.iloc[:0]


def published_difference(loss: str, measure: str, reference: str = REFERENCE) -> float:
    """Return the published difference of a loss from the reference in points; NaN where the paper has none."""
    means = TABLE1.get(f"{measure}_mean", pd.Series(dtype=float))
    return float(means.get(loss, float("nan")) - means.get(reference, float("nan")))


def label(loss: str) -> str:
    """Return what a loss is called: as the paper calls it, else by its name."""
    return str(TABLE1["label"].get(loss, loss.replace("_", " ")))


def departures(settings: Mapping[str, Any]) -> list[str]:
    """List the settings of a run that are not the full protocol's, as `optim.lr 0.5`."""
    difference = describe_difference(FULL_PROTOCOL, {key: settings.get(key, {}) for key in FULL_PROTOCOL})
    own = {key: value for key, value in settings.get("loss", {}).items() if key not in ("name", "function")}
    said = [f"{key} {now}" for key, (_, now) in difference.items() if key not in FREE]
    if own.pop("anchor", "none") != "none":
        said += [f"loss.{key} {value}" for key, value in own.items() if MODULATION.get(key) != value]
    return said


def stamps(runs: pd.DataFrame) -> list[str]:
    """List what a title says of runs that have ended: synthetic data, held-out images, and in an experiment of the paper
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
    return said + (["evaluated on held-out VALIDATION images"] if first["evaluated_on"] != "test" else [])


def interim(runs: pd.DataFrame, plan: Plan) -> str:
    """Say "interim, 3 of 10 seeds complete" while planned seeds are missing; empty once all are there, or without a plan.

    A seed counts when its runs of all planned losses have ended, finished or failed.
    """
    ended = runs[runs["state"].isin(["finished", "failed"])]
    there = set(zip(ended["loss"], ended["seed"], strict=True))
    complete = sum(all((loss, seed) in there for loss in plan.losses) for seed in plan.seeds)
    return f"interim, {complete} of {len(plan.seeds)} seeds complete" if complete < len(plan.seeds) else ""


def amended(runs: pd.DataFrame, plan: Plan, reference: str = REFERENCE) -> bool:
    """Whether the amendment of docs/protocol.md is printed: once every planned run has ended, where it applies, and every
    loss of the paper has two finished runs to compare.
    """
    question = EXPERIMENTS.get(runs["experiment"].iloc[0])
    finished = runs.loc[runs["state"] == "finished", "loss"].value_counts()
    whole = all(finished.get(loss, 0) > 1 for loss in LOSSES) and not interim(runs, plan)
    return question is not None and question.amended and reference == REFERENCE and whole


def planned(experiment: str) -> Plan:
    """Return what configs/experiment/<experiment>.yaml plans: nothing if it is not there, or sweeps over no loss.

    Raises:
        UserError: The file is not a config, or its sweep over losses is not written as `a,b,c`.
    """
    path = CONFIGS / "experiment" / f"{experiment}.yaml"
    if not path.is_file():
        return NO_PLAN
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        params = ((config.get("hydra") or {}).get("sweeper") or {}).get("params") or {}
        swept = params.get("loss", "")
        names = [name.strip() for name in str(swept).split(",") if name]
        files = {name: CONFIGS / "loss" / f"{name}.yaml" for name in names}
        known = {name: yaml.safe_load(file.read_text()) for name, file in files.items() if file.is_file()}
        seeds = config.get("seeds") or ()
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError) as error:
        raise UserError(f"{path}: not a config ({' '.join(str(error).split())})") from error
    if not all(name.replace("_", "").isalnum() for name in names):
        raise UserError(f"{path}: hydra.sweeper.params.loss={swept}: write it as bce,anchor_bg")
    # An experiment that starts from another one sweeps over the same losses unless it says otherwise.
    bases = (planned(name).losses for name in config.get("defaults", ()) if isinstance(name, str))
    losses = tuple(known.get(name, {}).get("name", name) for name in names) or next(filter(None, bases), ())
    return Plan(losses, tuple(seeds)) if losses and seeds else NO_PLAN
