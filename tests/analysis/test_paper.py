"""What counts as the full protocol, and what an experiment plans."""

from __future__ import annotations

import pytest

from anchorloss.analysis import frame, paper, table
from anchorloss.analysis.paper import FULL_PROTOCOL, LOSSES, departures, planned
from anchorloss.config.parsing import parse
from anchorloss.errors import UserError
from tests.in_process import composed
from tests.run_folders import finish_run, make_settings


def test_the_figures_are_those_of_the_supplement():
    rows = paper.TABLE1.drop(columns="source").to_numpy().tolist()
    assert rows == [
        ["BCE", 73.88, 0.22, 92.03, 0.42],
        ["(i) target", 74.06, 0.53, 92.32, 0.24],
        ["(ii) background", 74.25, 0.34, 92.62, 0.50],
        ["(iii) both", 73.90, 0.40, 92.24, 0.06],
    ]
    assert tuple(paper.TABLE1.index) == LOSSES
    assert paper.published_difference("anchor_bg", "top1") == pytest.approx(paper.MARGIN)


def test_the_full_protocol_is_that_of_its_config():
    ((run,), _) = parse(composed("experiment=table1", "seeds=[0]", "loss=anchor_bg"))
    identity = run.identity()
    assert {key: identity[key] for key in FULL_PROTOCOL} == FULL_PROTOCOL
    assert departures(identity) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"lr": 0.5}, ["optim.lr 0.5"]),
        ({"nesterov": True}, ["optim.nesterov true"]),
        ({"gamma": 1.0}, ["loss.gamma 1.0"]),
        ({"evaluate_every": 10}, []),
    ],
)
def test_a_departure_is_named_and_keeps_the_papers_figures_away(tmp_path, changed, said):
    settings = make_settings("anchor_bg", 0, **changed)
    assert departures(settings.identity()) == said
    finish_run(tmp_path, settings)
    shown = table.make(tmp_path, "table1", "loss")["table1.md"]
    assert ("74.25 ± 0.34" in shown) == (not said)
    assert all(one in shown.splitlines()[0] for one in said)


def test_an_experiment_that_is_not_the_papers_has_no_paper(tmp_path):
    for loss in ("bce", "anchor_bg"):
        finish_run(tmp_path, make_settings(loss, 0, experiment="mine", epochs=2))
    shown = table.make(tmp_path, "mine")["table1.md"]
    assert shown.splitlines()[0] == "# Table 1, experiment mine"
    assert "paper" not in shown


def test_a_seed_is_complete_once_all_its_planned_runs_have_ended(tmp_path):
    plan = planned("table1")
    for place, loss in enumerate(LOSSES):
        for seed in range(place, 5):
            finish_run(tmp_path, make_settings(loss, seed), failed=(loss, seed) == ("anchor_both", 4))
    assert paper.interim(frame.runs("table1", tmp_path), plan) == "interim, 2 of 5 seeds complete"
    for place, loss in enumerate(LOSSES):
        for seed in range(place):
            finish_run(tmp_path, make_settings(loss, seed))
    assert paper.interim(frame.runs("table1", tmp_path), plan) == ""
    assert paper.interim(frame.runs("table1", tmp_path), paper.NO_PLAN) == ""


def test_plans_are_read_where_there_are_some():
    assert planned("table1_small") == ((*LOSSES, "softmax"), (0, 1, 2, 3, 4))
    assert planned("table1_resnet20") == (LOSSES, tuple(range(10)))  # its losses are those of table1
    assert planned("scratch") == planned("nothing_of_that_name") == paper.NO_PLAN


@pytest.mark.parametrize(
    ("swept", "losses"), [("'bce, my_hinge'", ("bce", "hinge")), ("my_hinge", ("hinge",)), ("null", ())]
)
def test_a_plan_has_the_names_that_runs_get(tmp_path, monkeypatch, swept, losses):
    monkeypatch.setattr(paper, "CONFIGS", tmp_path)
    for folder in ("experiment", "loss"):
        (tmp_path / folder).mkdir()
    (tmp_path / "loss" / "my_hinge.yaml").write_text("name: hinge\nfunction: my_losses.hinge\n")
    params = "null" if swept == "null" else f"{{loss: {swept}}}"
    (tmp_path / "experiment" / "mine.yaml").write_text(
        f"seeds: [0]\nhydra: {{sweeper: {{params: {params}}}}}\n"
    )
    assert planned("mine").losses == losses


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("hydra: {sweeper: {params: {loss: [bce, anchor_bg]}}}\n", "write it as bce,anchor_bg"),
        ("hydra: {sweeper: {params: {loss: 'choice(bce,mine)'}}}\n", "write it as bce,anchor_bg"),
        ("", "not a config"),
        ("a: [1", "not a config"),
    ],
)
def test_a_plan_that_cannot_be_read_is_one_line(tmp_path, monkeypatch, content, message):
    monkeypatch.setattr(paper, "CONFIGS", tmp_path)
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(content)
    with pytest.raises(UserError, match=message):
        planned("mine")
