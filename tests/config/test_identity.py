"""A run's identity, which names its folder for ever: the committed runs must be found again by today's code."""

from __future__ import annotations

import itertools
import json
from typing import Annotated

import pytest
import yaml
from pydantic import Field

from anchorloss.config import settings
from anchorloss.config.parsing import parse, recorded_run
from anchorloss.config.settings import DataSettings, RunSettings, identity_hash
from anchorloss.runs.folder import read_config, run_config
from anchorloss.runs.record import Record
from tests.conftest import ROOT
from tests.in_process import composed

RECORDS = sorted((ROOT / "results" / "runs").glob("*/*/record.json"))
# The arms that an experiment's own config does not sweep over: their overrides stand in docs/.
SWEPT = [
    *("precision_small", "precision_synthetic", "sanity_resnet110", "sanity_resnet20"),
    *("smoke", "table1_small", "ablation_small", "table1_resnet20"),
]


def test_every_committed_run_is_found_again_and_written_back_byte_for_byte() -> None:
    """The keys that are newer than a record are not in its identity."""
    assert len(RECORDS) > 90
    for path in RECORDS:
        content = path.read_bytes()
        record = Record.from_json(content, path)
        assert record.to_json().encode() == content
        run = recorded_run(record.experiment, record.identity)
        assert json.dumps(run.identity()) == json.dumps(record.identity)
        assert run.run == record.run == path.parent.name
        assert run.hash == record.hash == identity_hash(record.identity)
        assert read_config(path.parent) == run_config(run.experiment, run.identity())


class GrownData(DataSettings):
    """The data's settings with a key that came later."""

    cutout: Annotated[int, Field(ge=0, le=32)] = 0


class GrownRun(RunSettings):
    data: GrownData


def test_a_key_that_is_added_later_leaves_every_hash_as_it_was() -> None:
    for path in RECORDS:
        record = Record.from_json(path.read_bytes(), path)
        values = {**record.identity, "experiment": record.experiment}
        assert GrownRun.model_validate(values).run == path.parent.name
        cut_out = GrownRun.model_validate({**values, "data": {**values["data"], "cutout": 8}})
        assert cut_out.hash != record.hash
        assert cut_out.identity()["data"] == {**record.identity["data"], "cutout": 8}


def test_a_copy_with_another_seed_has_a_hash_of_its_own() -> None:
    run, again = (recorded_run("x", json.loads(RECORDS[0].read_bytes())["identity"]) for _ in range(2))
    assert run.hash == again.hash
    other = run.model_copy(update={"seed": run.seed + 1})
    assert other.hash != run.hash == run.model_copy().hash


def planned(experiment: str) -> set[str]:
    """The run folders that `python train.py experiment=…` plans."""
    file = "table1" if experiment == "table1_resnet20" else experiment  # which inherits the sweep
    text = (ROOT / "configs" / "experiment" / f"{file}.yaml").read_text()
    params = yaml.safe_load(text).get("hydra", {}).get("sweeper", {}).get("params", {})
    arms = itertools.product(
        *([f"{key}={value}" for value in str(values).split(",")] for key, values in params.items())
    )
    return {run.run for arm in arms for run in parse(composed(f"experiment={experiment}", *arm))[0]}


@pytest.mark.parametrize("experiment", SWEPT)
def test_an_experiment_plans_the_runs_that_are_recorded(experiment: str) -> None:
    recorded = {path.parent.name for path in RECORDS if path.parent.parent.name == experiment}
    names = planned(experiment)
    assert names & recorded
    assert names <= recorded or recorded <= names, "these two are about other runs"


def test_the_warm_up_arm_of_the_sanity_run_is_found_again() -> None:
    overrides = [
        "experiment=sanity_resnet110",
        "experiment.name=sanity_resnet110_warmup",
        "optim.lr_warmup_epochs=1",
    ]
    (run,), _ = parse(composed(*overrides, "loss=anchor_bg"))
    assert (ROOT / "results" / "runs" / "sanity_resnet110_warmup" / run.run / "record.json").is_file()


def test_resnet110_gets_the_warm_up_that_it_needs() -> None:
    for overrides in (["model=resnet110"], ["model=resnet110", "optim=short"], ["experiment=table1"]):
        assert parse(composed(*overrides))[0][0].optim.lr_warmup_epochs == 1
    assert parse(composed("model=resnet110", "optim.lr_warmup_epochs=0"))[0][0].optim.lr_warmup_epochs == 0
    assert parse(composed("model=resnet56"))[0][0].optim.lr_warmup_epochs == 0


def test_the_papers_losses_are_those_of_the_configs() -> None:
    for name, anchor in settings.PAPER_LOSSES.items():
        ((run,), _) = parse(composed(f"loss={name}"))
        assert (run.loss.name, run.loss.arguments["anchor"]) == (name, anchor)
