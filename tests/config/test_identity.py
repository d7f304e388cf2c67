"""A run's identity, which names its folder for ever: the committed runs must be found again by today's code."""

from __future__ import annotations

import itertools

import pytest
import yaml
from omegaconf import OmegaConf

from anchorloss.config import settings
from anchorloss.config.identity import identity_hash
from anchorloss.config.parsing import parse
from anchorloss.config.settings import Config
from anchorloss.runs.folder import read_config, read_record, run_config
from anchorloss.runs.record import Record
from tests.conftest import ROOT
from tests.in_process import composed

RECORDS = sorted((ROOT / "results" / "runs").glob("*/*/record.json"))
# The arms that an experiment's own config does not sweep over: their overrides stand in docs/.
SWEPT = [
    *("precision_small", "precision_synthetic", "quickstart", "sanity_resnet110", "sanity_resnet20"),
    *("smoke", "table1_small", "ablation_small", "table1_resnet20"),
]


def test_there_are_records() -> None:
    assert len(RECORDS) > 90


def test_every_record_is_written_back_byte_for_byte() -> None:
    for path in RECORDS:
        content = path.read_bytes()
        assert Record.from_json(content, path).to_json().encode() == content


def test_every_record_agrees_with_the_files_beside_it() -> None:
    for path in RECORDS:
        record = read_record(path.parent)
        assert record is not None
        assert read_config(path.parent) == run_config(record.experiment, record.identity)


def test_every_recorded_config_gives_the_recorded_identity() -> None:
    """The keys that are newer than a record are not in its identity."""
    for path in RECORDS:
        record = Record.from_json(path.read_bytes(), path)
        config = OmegaConf.merge(OmegaConf.structured(Config), read_config(path.parent))
        assert isinstance(config, type(OmegaConf.create({})))
        (run,), _ = parse(config)
        assert run.run == path.parent.name
        assert run.identity() == record.identity
        assert run.hash == record.hash == identity_hash(record.identity)


def planned(experiment: str) -> set[str]:
    """The run folders that `python train.py experiment=…` plans."""
    file = "table1" if experiment == "table1_resnet20" else experiment  # which inherits the sweep
    text = (ROOT / "configs" / "experiment" / f"{file}.yaml").read_text()
    params = yaml.safe_load(text).get("hydra", {}).get("sweeper", {}).get("params", {})
    arms = itertools.product(
        *([f"{key}={value}" for value in str(values).split(",")] for key, values in params.items())
    )
    if experiment == "quickstart":
        arms = ((*arm, "precision=bf16") for arm in arms)  # recorded on a processor that has it
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
