"""Which runs can stand in one table, and what becomes of text and numbers; the golden results tree has the rest."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from scipy import stats

from anchorloss.analysis import frame, table
from anchorloss.analysis.frame import MEASURES, Measure
from anchorloss.analysis.paper import LOSSES
from anchorloss.errors import UserError
from tests.commands import call
from tests.run_folders import edit_record, finish_run, make_settings, plan_run

TOP1 = {"bce": [73.6, 74.05, 73.9], "anchor_bg": [74.4, 74.1, 74.75]}


@pytest.fixture
def results(tmp_path):
    for loss, values in TOP1.items():
        for seed, top1 in enumerate(values):
            finish_run(
                tmp_path, make_settings(loss, seed, experiment="quickstart", epochs=2), top1=top1, top5=92.0
            )
    return tmp_path


def made(results, experiment="quickstart", **options):
    """Each file's text, and the rows of the CSV by their first two columns."""
    texts = table.make(results, experiment, **options)
    rows = [list(csv.DictReader(io.StringIO(text))) for name, text in texts.items() if name.endswith("csv")]
    return texts, rows[0]


def test_the_csv_is_the_records_in_four_decimals(results):
    finish_run(results, make_settings("softmax", experiment="quickstart", epochs=2), top1=73.12)
    rows = {row["loss"]: row for row in made(results)[1]}
    expected = stats.ttest_rel(TOP1["anchor_bg"], TOP1["bce"])
    low, high = expected.confidence_interval()
    assert rows["anchor_bg"]["top1_minus_bce_low"] == str(round(low, 4))
    assert rows["anchor_bg"]["top1_minus_bce_high"] == str(round(high, 4))
    assert (rows["softmax"]["top1_std"], rows["softmax"]["paper_top1_mean"]) == ("", "")
    assert (rows["softmax"]["n"], rows["softmax"]["planned"]) == ("1", "3")


def test_a_reference_of_ones_own_has_no_columns_of_the_paper(results):
    finish_run(results, make_settings("softmax", experiment="quickstart", epochs=2), top1=73.12)
    markdown = made(results, reference="softmax")[0]["table1.md"]
    assert "Top-1 - softmax (95 %)" in markdown
    assert "paper" not in markdown
    with pytest.raises(UserError, match="--reference hinge: has no run; use one of bce, anchor_bg, softmax"):
        table.make(results, "quickstart", reference="hinge")


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"lr": 0.05}, "optim.lr is 0.1 in one, 0.05 in the other"),
        ({"model": "resnet56"}, 'model.name is "resnet110" in one, "resnet56" in the other'),
        ({"data": "cifar10"}, 'data.name is "cifar100" in one, "cifar10" in the other'),
    ],
)
def test_other_settings_do_not_mix_in_table_1(tmp_path, other, named):
    runs = [make_settings("bce", 0), make_settings("anchor_bg", 1, **other)]
    for run in runs:
        finish_run(tmp_path, run)
    with pytest.raises(UserError) as caught:
        table.make(tmp_path, "table1", "loss")
    assert all(part in str(caught.value) for part in (named, *(run.run for run in runs)))
    finish_run(tmp_path, make_settings("bce", 2, lr=1e6, experiment="mine"), failed=True)
    finish_run(tmp_path, make_settings("bce", 2, experiment="mine"))
    assert "1 (1 failed)" in table.make(tmp_path, "mine")["table1.md"]  # one that failed may have had others


def test_settings_of_the_loss_differ_between_losses_but_not_within_one(tmp_path):
    for loss, gamma in (("anchor_bg", 0.5), ("anchor_both", 1.0)):
        finish_run(tmp_path, make_settings(loss, 0, gamma=gamma))
    assert "table1.md" in table.make(tmp_path, "table1")
    finish_run(tmp_path, make_settings("anchor_both", 2, gamma=2.0))
    with pytest.raises(UserError, match=r"loss\.gamma is 1\.0 in one, 2\.0 in the other"):
        table.make(tmp_path, "table1", "loss")
    assert "settings.md" in table.make(tmp_path, "table1")


def test_other_data_under_the_same_name_does_not_mix(tmp_path):
    finish_run(tmp_path, make_settings("bce", 0))
    folder = finish_run(tmp_path, make_settings("bce", 1, lr=0.5))
    data = json.loads((folder / "record.json").read_text())["data"]
    edit_record(folder, data={**data, "checksum": "md5:other"})
    for by in ("loss", "settings"):
        with pytest.raises(UserError, match=r"dataset\.checksum"):
            table.make(tmp_path, "table1", by)


def test_held_out_images_are_stamped(tmp_path):
    run = make_settings(experiment="mine")
    held_out = run.data.model_copy(update={"validation": 5000, "evaluate_on": "validation"})
    finish_run(tmp_path, run.model_copy(update={"data": held_out}), images=5000)
    markdown = table.make(tmp_path, "mine")["table1.md"]
    assert "evaluated on held-out VALIDATION images" in markdown.splitlines()[0]
    assert "5,000 validation images" in markdown


def test_settings_are_compared_with_the_reference_at_the_same_ones(tmp_path):
    for lr in (0.1, 0.2):
        for loss, top1 in (("bce", 70.0), ("anchor_bg", 70.5)):
            for seed in range(3):
                finish_run(
                    tmp_path,
                    make_settings(loss, seed, lr=lr),
                    top1=top1 + 5 * lr + 0.25 * seed * (loss == "bce"),
                )
    texts, rows = made(tmp_path, "table1", reference="bce")
    assert [(row["loss"], row["optim.lr"], row["top1_difference"]) for row in rows] == [
        *(("bce", "0.1", ""), ("bce", "0.2", ""), ("anchor_bg", "0.1", "0.25"), ("anchor_bg", "0.2", "0.25")),
    ]
    assert (
        "- anchor_bg, optim.lr 0.1: Mean Top-1 is 0.25 points above BCE (95 % interval "
        in texts["settings.md"]
    )
    assert "Minimum detectable difference" in texts["settings.md"]


def test_a_precision_is_compared_with_fp32_of_another_experiment(tmp_path):
    for seed in range(3):
        finish_run(tmp_path, make_settings("bce", seed, experiment="full"), top1=70 + seed)
        halved = make_settings("bce", seed, experiment="half").model_copy(update={"precision": "bf16"})
        finish_run(tmp_path, halved, top1=70.5 + seed + 0.25 * (seed == 1))
    finish_run(
        tmp_path, make_settings("bce", 7, experiment="full"), top1=10.0
    )  # a seed that the other has not
    with pytest.raises(UserError, match="no loss has finished runs in fp32 and another precision"):
        table.make(tmp_path, "half", "precision")
    _, (half, full) = made(tmp_path, "half", by="precision", beside="full")
    assert (half["precision"], half["n"], half["top1_difference"]) == ("bf16", "3", "0.5833")
    assert (full["precision"], full["n"], full["top1_mean"]) == ("fp32", "3", "71.0")


def test_a_further_measure_is_one_line(results, monkeypatch):
    """Top-3: in the table, its CSV and the statistics."""
    top3 = Measure("Top-3", lambda one: 100 * float((one.target_rank < 3).mean()))
    monkeypatch.setitem(MEASURES, "top3", top3)
    monkeypatch.setitem(frame.SCORES, "top3", "Top-3")
    texts, rows = made(results)
    assert "Top-3 - BCE (95 %)" in texts["table1.md"]
    assert all(75 < float(row["top3_mean"]) < 92 for row in rows if row["n"] != "0")
    assert "Top-3 (secondary measure), better than BCE:" in table.statistics(
        frame.runs("quickstart", results)
    )


def test_the_amendment_is_printed_once_every_planned_seed_is_whole(tmp_path):
    draw = np.random.default_rng(3)
    runs = [(loss, seed) for loss in LOSSES for seed in range(10)]
    for loss, seed in runs:
        settings = make_settings(loss, seed, experiment="table1_resnet20", model="resnet20", epochs=2)
        if (loss, seed) != runs[-1]:
            finish_run(tmp_path, settings, top1=65 + draw.normal(), images=400)
    assert "Exclusion" not in table.statistics(frame.runs("table1_resnet20", tmp_path))
    finish_run(tmp_path, settings, top1=65.0, images=400)
    said = table.statistics(frame.runs("table1_resnet20", tmp_path))
    for part in (
        "Exclusion (Top-1; amendment",
        "Equivalence (two one-sided t tests",
        "Sensitivity (`top1 ~ loss`",
    ):
        assert part in said
    assert "interim" not in said


def test_latex_is_escaped_and_balanced(tmp_path):
    finish_run(tmp_path, make_settings("a_new_loss", experiment="my_sweep"))
    plan_run(tmp_path, make_settings("a_new_loss", 1, experiment="my_sweep"))
    text = table.make(tmp_path, "my_sweep")["table1.tex"]
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert "my\\_sweep" in body
    assert "_" not in body.replace("\\_", "")
    assert body.count("{") == body.count("}")
    assert body.count("$") % 2 == 0
    assert body.isascii()


def test_text_from_a_record_stays_text(tmp_path):
    hostile = "CPU \\input{secrets} <img src=x onerror=y> | **=1+1** [a](javascript:b) `c` & $d$"
    folder = finish_run(tmp_path, make_settings("bce", experiment="mine"))
    provenance = json.loads((folder / "record.json").read_text())["provenance"]
    edit_record(folder, provenance={**provenance, "device": hostile})
    failed = finish_run(tmp_path, make_settings("bce", 1, experiment="mine"), failed=True)
    failure = json.loads((failed / "record.json").read_text())["failure"]
    edit_record(failed, failure={**failure, "reason": f"{hostile} \\write18{{id}}"})
    texts = (
        table.make(tmp_path, "mine")
        | table.make(tmp_path, "mine", "run")
        | table.make(tmp_path, "mine", "epoch")
    )
    live = [line for line in texts.pop("table1.tex").splitlines() if not line.startswith("%")]
    assert not any("\\input" in line or "\\write" in line for line in live)
    for name in ("table1.md", "runs.md", "curves.md"):
        prose = texts[name].replace("\\\\", "").replace("**CIFAR-100**", "")
        for mark in ("<", "*", "["):
            assert mark not in prose.replace(f"\\{mark}", "")


def test_the_script_writes_and_prints_and_says_what_differs(results):
    done = call("make_table1.py", "--experiment", "quickstart", "--results-dir", results)
    assert (done.returncode, done.stderr) == (0, "")
    folder = results / "quickstart"
    assert sorted(path.name for path in folder.iterdir()) == ["table1.csv", "table1.md", "table1.tex"]
    assert "(ii) background" in done.stdout
    check = ("--check", "--results-dir", results)
    assert call("make_table1.py", *check).stdout == "3 files of tables: no byte differs\n"
    (folder / "table1.csv").write_text("loss\n")
    done = call("make_table1.py", *check)
    assert (done.returncode, done.stdout.splitlines()[0]) == (
        1,
        f"{folder}/table1.csv: is not what its records give",
    )


@pytest.mark.parametrize("by", ["loss", "settings", "precision", "run", "epoch"])
def test_without_a_record_or_with_a_damaged_one_it_is_one_line(tmp_path, by):
    arguments = ("--results-dir", tmp_path, "--by", by)
    plan_run(tmp_path, make_settings())
    done = call("make_table1.py", *arguments)
    assert done.stderr == (
        "error: experiment=table1: none of the 1 runs has ended, so there is no table; run python train.py "
        "experiment=table1\n"
    )
    path = finish_run(tmp_path, make_settings("bce", 1)) / "record.json"
    path.write_bytes(path.read_bytes()[:200])
    done = call("make_table1.py", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {path}: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "table1").exists()
