"""The page, its figures and what the README opens with."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch

from anchorloss.analysis import answer, figures, frame, paper, table
from anchorloss.analysis.report import write_report
from tests.commands import call
from tests.conftest import ROOT
from tests.run_folders import make_runs, sealed

GOLDEN = ROOT / "tests" / "golden" / "results"


@pytest.fixture
def golden(tmp_path):
    (tmp_path / "runs").symlink_to(GOLDEN / "runs")
    return tmp_path


@pytest.mark.parametrize("experiment", ["table1", "table1_small", "one_seed"])
def test_a_page_is_whole_and_takes_nothing_from_outside(golden, experiment):
    path = write_report(golden, experiment)
    page = path.read_text()
    opened = re.sub(r"<[^>]*/>|<(meta|link|br)\b[^>]*>", "", page)
    for tag in set(re.findall(r"<(\w+)", opened)):
        assert len(re.findall(rf"<{tag}\b", opened)) == opened.count(f"</{tag}>"), tag
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(set(ids)) == len(ids)
    links = re.findall(r'(?:href|src)="([^"]*)"|url\(([^)]*)\)', page)
    assert {"".join(link) for link in links} <= {"data:,", *(f"#{name}" for name in ids)}
    assert not re.search(r"<script|@import|\bon\w+=", page)
    runs = frame.runs(experiment, golden)
    for cell in table.cells(table.numbers(runs, plan=paper.planned(experiment)), bold="{}").to_numpy().flat:
        assert re.sub(r"(?<![\w.])-(?=\d)", "\N{MINUS SIGN}", cell) in page
    for name in runs.index:
        assert name in page
    assert write_report(golden, experiment).read_text() == page


def test_the_number_of_missing_runs_counts_runs(golden):
    runs = frame.runs("table1_small", golden)
    plan = paper.planned("table1_small")
    planned = {
        (loss, seed) for loss in {*plan.losses, *runs["loss"]} for seed in {*plan.seeds, *runs["seed"]}
    }
    missing = len(planned) - (runs["state"] == "finished").sum()
    assert f"Runs that are not in the means: {missing}<" in write_report(golden, "table1_small").read_text()


def test_class_by_class_is_over_the_seeds_that_both_losses_have(tmp_path):
    make_runs(tmp_path, "quick", losses=("bce", "anchor_bg"), seeds=range(3), missing={("anchor_bg", 0)})
    everything = write_report(tmp_path, "quick").read_text()
    make_runs(tmp_path, "shared", losses=("bce", "anchor_bg"), seeds=(1, 2))
    shared = write_report(tmp_path, "shared").read_text()

    def rows(text: str) -> list[str]:
        section = text[text.index('<section id="classes"') : text.index('<section id="confusion"')]
        return re.findall("<td[^>]*>([+\N{MINUS SIGN}][0-9.]+)</td>", section)

    assert rows(everything) == rows(shared) != []


def test_what_records_say_is_text(tmp_path):
    make_runs(tmp_path, "quick", losses=("bce", "anchor_bg"), seeds=(0, 1))
    for path in tmp_path.glob("runs/quick/*/record.json"):
        content = json.loads(path.read_text())
        content["provenance"]["device"] = "<script>alert(1)</script>"
        path.write_bytes(sealed(content))
    page = write_report(tmp_path, "quick").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_a_backend_of_a_notebook_does_not_matter(golden, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    done = call("report.py", "--results-dir", golden, "--experiment", "one_seed")
    assert (done.returncode, done.stderr) == (0, "")


def verdicts(**found: str) -> pd.DataFrame:
    rows = {
        loss: {"difference": 0.3, "low": 0.1, "high": 0.5, "n": 5, "verdict": verdict}
        for loss, verdict in found.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def test_the_answer_names_every_loss_by_its_verdict():
    found = verdicts(
        anchor_target="not resolved", anchor_bg="supported", anchor_both="contradicted", mine="supported"
    )
    said = answer.sentence(found, "bce")
    assert said.startswith(
        "Better than BCE in Top-1: (ii) background (+0.30 [+0.10, +0.50]); worse than BCE in Top-1: (iii)"
    )
    assert "no resolved difference from BCE in Top-1: (i) target; beyond the paper, better than" in said
    nothing = found.assign(difference=np.nan)
    assert "Nothing to compare" in answer.sentence(nothing, "bce")


def test_the_readme_rests_on_the_largest_experiment_with_two_seeds_of_every_loss(tmp_path):
    assert b"Not known yet" in answer.readme(tmp_path)["answer.md"]
    make_runs(tmp_path, "table1_small", seeds=range(3), data="cifar100", model="resnet8")
    small = answer.readme(tmp_path)
    make_runs(tmp_path, "table1_resnet20", seeds=(0,), data="cifar100")
    assert answer.readme(tmp_path)["answer.md"] == small["answer.md"]
    make_runs(tmp_path, "table1_resnet20", seeds=(1,), data="cifar100")
    made = answer.readme(tmp_path)
    assert b"ResNet-20, 40 epochs, interim, 2 of 10 seeds complete" in made["answer.md"]
    assert b"excluded" not in made["answer.md"].lower(), "an interim table is no look at the amendment"
    assert made["table.md"].count(b"\n") == 6


@pytest.mark.parametrize("failed", [0, 9])
def test_the_amendment_is_said_once_ten_seeds_of_every_loss_are_whole(tmp_path, failed):
    runs = {"data": "cifar100", "images": 300, "epochs": 3}
    runs["failed"] = {("anchor_both", seed) for seed in range(failed)}
    make_runs(tmp_path, "table1_resnet20", seeds=range(10), **runs)
    text = write_report(tmp_path, "table1_resnet20").read_text()
    assert ("within 0.37 points" in text) is (failed == 0)
    assert not re.search(r"[`*]|>- |\n- ", text[text.index("<main>") : text.index('<section id="table"')])
    said = answer.readme(tmp_path).get("answer.md", b"").decode()
    assert failed or ("10 seeds" in said and "interim" not in said)
    assert not failed or "Excluded" not in said


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_figure_1_is_equations_2_and_3(gamma):
    q = torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
    target = -((1 - q + 0.2) ** gamma) * torch.log(q)
    background = -((1 + q - 0.8) ** gamma) * torch.log(1 - q)
    torch.testing.assert_close(figures.modulated_loss("target", gamma, q, 0.2), target)
    torch.testing.assert_close(figures.modulated_loss("background", gamma, q, 0.8), background)


def test_a_figure_stands_alone_in_either_theme():
    svg = figures.figure1("target", "one")
    light, dark = (figures.stand_alone(svg, theme).decode() for theme in ("light", "dark"))
    assert "var(--" not in light + dark
    assert light != dark
