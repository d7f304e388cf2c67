"""What counts as the full protocol, and what an experiment plans."""

from __future__ import annotations

import subprocess

import pytest

from anchorloss.config.parsing import parse
from anchorloss.errors import UserError
from anchorloss.report import protocol
from anchorloss.report.page import write_report
from anchorloss.report.protocol import FULL, FULL_PROTOCOL, departures, planned
from anchorloss.report.table import PAPER_LOSSES, build_table, stamps
from anchorloss.report.table_text import make_table, to_markdown
from anchorloss.runs.differences import describe_difference
from anchorloss.runs.folder import read_runs
from tests.conftest import ROOT
from tests.in_process import composed
from tests.run_folders import finish_run, make_record, make_settings


def test_the_full_protocol_is_that_of_its_config():
    ((run,), _) = parse(composed("experiment=table1", "seeds=[0]", "loss=anchor_bg"))
    identity = run.identity()
    assert {key: identity[key] for key in FULL_PROTOCOL} == FULL_PROTOCOL
    assert stamps([make_record(run)]) == ()


@pytest.mark.parametrize(
    ("loss", "hashed"),
    [
        ("bce", "f5ea5aa01e"),
        ("anchor_target", "cd0970f017"),
        ("anchor_bg", "93e4d1b8b4"),
        ("anchor_both", "1304768f98"),
    ],
)
def test_the_resnet20_protocol_names_the_runs_that_were_trained(loss, hashed):
    """The first of them were trained by hand-written overrides, before the experiment had a config of its own."""
    runs, _ = parse(composed("experiment=table1_resnet20", f"loss={loss}"))
    assert [run.seed for run in runs] == list(range(10))
    assert runs[0].run == f"{loss}-resnet20-seed0-{hashed}"
    full, _ = parse(composed("experiment=table1", f"loss={loss}"))
    changed = describe_difference(full[0].identity(), runs[0].identity())
    assert changed == {"model.name": ('"resnet110"', '"resnet20"'), "optim.epochs": ("200", "40")}


@pytest.mark.parametrize(
    ("profile", "experiment"),
    [("full", "table1"), ("resnet20", "table1_resnet20"), ("small", "table1_small")],
)
def test_a_profile_is_an_experiment(profile, experiment):
    done = make("table1", f"PROFILE={profile}")
    assert f"train.py experiment={experiment} " in done.stdout
    assert f"make_table1.py --experiment {experiment} " in done.stdout.replace("\n", " ")


@pytest.mark.parametrize("profile", ["Small", "", "small full", "table1"])
@pytest.mark.parametrize("target", ["table1", "status", "report"])
def test_an_unknown_profile_is_refused_before_anything_runs(profile, target):
    done = make(target, f"PROFILE={profile}")
    assert done.returncode == 2
    assert f"PROFILE={profile}: there is no such profile; use full, resnet20 or small" in done.stderr
    assert "train.py" not in done.stdout


def make(*arguments):
    """What make would do."""
    return subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    "changed", [{"lr": 0.5}, {"softmax_warmup_epochs": 5}, {"gamma": 1.0}, {"nesterov": True}]
)
def test_any_other_setting_keeps_the_papers_figures_away(tmp_path, changed):
    for loss in ("bce", "anchor_bg"):
        finish_run(tmp_path, make_settings(loss, 0, **changed))
    table = build_table(read_runs(tmp_path, FULL), FULL)
    ((key, value),) = changed.items()
    assert any(f"{key} {str(value).lower()}" in stamp for stamp in table.stamps), table.stamps
    assert "73.88 ± 0.22" not in to_markdown(table)


def test_fp32_and_rarer_evaluation_are_the_full_protocol():
    assert departures(make_record(make_settings("anchor_bg", 0, evaluate_every=10))) == []


def test_what_an_experiment_plans_and_nobody_began_is_in_the_table(tmp_path):
    finish_run(tmp_path, make_settings("bce", 0))
    assert "not run: anchor_both" in write_report(tmp_path, FULL).read_text()
    text = to_markdown(make_table(tmp_path, FULL))
    for said in ("| BCE             | 1 of 5 |", "| (iii) both      | 0 of 5 | not run |"):
        assert said.replace(" ", "") in text.replace(" ", "")
    assert "not run: anchor_both" in text
    assert "not run: bce seeds 1, 2, 3, 4" in text


def test_a_table_with_planned_seeds_missing_says_that_it_is_interim(tmp_path):
    """A seed counts once the runs of all planned losses have ended."""
    for place, loss in enumerate(PAPER_LOSSES):
        for seed in range(place, 5):
            finish_run(tmp_path, make_settings(loss, seed), failed=(loss, seed) == ("anchor_both", 4))
    table = make_table(tmp_path, FULL)
    assert table.interim == "interim, 2 of 5 seeds complete"
    assert table.stamps == ()
    assert (
        to_markdown(table).splitlines()[0] == "# Table 1, experiment table1 - interim, 2 of 5 seeds complete"
    )
    for suffix in ("md", "tex"):
        assert "interim, 2 of 5 seeds complete" in (tmp_path / FULL / f"table1.{suffix}").read_text()
    assert "interim, 2 of 5 seeds complete" in write_report(tmp_path, FULL).read_text()
    for place, loss in enumerate(PAPER_LOSSES):
        for seed in range(place):
            finish_run(tmp_path, make_settings(loss, seed))
    assert make_table(tmp_path, FULL).interim is None
    assert "interim" not in write_report(tmp_path, FULL).read_text()
    finish_run(tmp_path, make_settings("bce", 0, experiment="without_a_plan"))
    assert make_table(tmp_path, "without_a_plan").interim is None


def test_blanks_around_a_swept_loss_are_not_part_of_its_name(tmp_path, monkeypatch):
    """Hydra does not take them for it either."""
    monkeypatch.setattr(protocol, "EXPERIMENTS", tmp_path)
    sweep = "seeds: [0]\nhydra: {sweeper: {params: {loss: 'bce, anchor_bg'}}}\n"
    (tmp_path / "mine.yaml").write_text(sweep)
    plan = planned("mine")
    assert plan is not None
    assert plan.losses == ("bce", "anchor_bg")


def test_a_plan_has_the_names_that_runs_get(tmp_path, monkeypatch):
    """A loss config's file name need not be its `name`, and Hydra has another way to write a choice."""
    monkeypatch.setattr(protocol, "EXPERIMENTS", tmp_path / "experiment")
    for folder in ("experiment", "loss"):
        (tmp_path / folder).mkdir()
    (tmp_path / "loss" / "my_hinge.yaml").write_text("name: hinge\nfunction: my_losses.hinge\n")
    mine = tmp_path / "experiment" / "mine.yaml"
    for swept, losses in (
        ("bce,my_hinge", ("bce", "hinge")),
        ("choice(bce, my_hinge)", ("bce", "hinge")),
        ("'bce','my_hinge'", ("bce", "hinge")),
        (" my_hinge ", ("hinge",)),
    ):
        mine.write_text(f'seeds: [0]\nhydra: {{sweeper: {{params: {{loss: "{swept}"}}}}}}\n')
        plan = planned("mine")
        assert plan is not None
        assert plan.losses == losses
    mine.write_text("seeds: [0]\nhydra: {sweeper: {params: null}}\n")
    assert planned("mine") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hydra: {sweeper: {params: {loss: [bce, anchor_bg]}}}\n", "write it as bce,anchor_bg"),
        ("hydra: {sweeper: {params: {loss: 'choice(bce'}}}\n", "write it as bce,anchor_bg"),
        ("hydra: {sweeper: {params: {loss: 'glob(*)'}}}\n", "write it as bce,anchor_bg"),
        ("", "not a config"),
        ("a: [1", "not a config"),
    ],
)
def test_a_plan_that_cannot_be_read_is_one_line(tmp_path, monkeypatch, text, message):
    monkeypatch.setattr(protocol, "EXPERIMENTS", tmp_path)
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        planned("mine")


def test_plans_are_read_where_there_are_some():
    plan = planned("table1_small")
    assert plan is not None
    assert plan.losses == ("bce", "anchor_target", "anchor_bg", "anchor_both", "softmax")
    assert plan.seeds == (0, 1, 2, 3, 4)
    resnet20 = planned("table1_resnet20")
    assert resnet20 is not None
    assert resnet20.losses == PAPER_LOSSES
    assert resnet20.seeds == tuple(range(10))
    assert planned("scratch") is None
    assert planned("nothing_of_that_name") is None
