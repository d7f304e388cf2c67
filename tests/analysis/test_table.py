from __future__ import annotations

import csv
import io
import json
import shutil
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from anchorloss.errors import UserError
from anchorloss.report.published import read_published
from anchorloss.report.table import Table, build_table
from anchorloss.report.table_text import make_table, to_csv, to_latex, to_markdown
from anchorloss.runs.folder import read_runs
from anchorloss.terminal import plain_text
from tests.commands import Done, call
from tests.run_folders import ANCHORS, edit_record, finish_run, interrupt_run, make_settings, plan_run

ROOT = Path(__file__).resolve().parents[2]
TOP1 = {"bce": [73.5, 73.9, 74.3], "anchor_bg": [74.0, 74.5, 74.6], "anchor_both": [73.0, 74.0, 73.2]}
TOP5 = {"bce": [92.0, 92.4, 92.1], "anchor_bg": [92.0, 92.1, 92.2], "anchor_both": [91.0, 92.0, 91.2]}


def finish_all(results: Path, **settings: Any) -> None:
    for loss, scores in TOP1.items():
        for seed, top1 in enumerate(scores):
            finish_run(results, make_settings(loss, seed, **settings), top1=top1, top5=TOP5[loss][seed])


def table_of(results: Path, experiment: str = "table1") -> Table:
    return build_table(read_runs(results, experiment), experiment)


def markdown_cells(table: Table) -> dict[str, list[str]]:
    """The Markdown table, by its first column."""
    lines = [line for line in to_markdown(table).splitlines() if line.startswith("|")]
    return {
        cells[0]: cells[1:] for cells in ([cell.strip() for cell in line[1:-1].split("|")] for line in lines)
    }


def run_script(results: Path, *arguments: str) -> Done:
    return call("make_table1.py", "--results-dir", results, *arguments)


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_means_deviations_and_differences_are_those_of_the_records(tmp_path: Path) -> None:
    finish_all(tmp_path)
    rows = {row.loss: row for row in table_of(tmp_path).rows}
    for loss in TOP1:
        assert rows[loss].top1.n == 3
        assert rows[loss].top1.mean == pytest.approx(statistics.fmean(TOP1[loss]))
        assert rows[loss].top1.std == pytest.approx(statistics.stdev(TOP1[loss]))
        assert rows[loss].top5.mean == pytest.approx(statistics.fmean(TOP5[loss]))
        assert rows[loss].top5.std == pytest.approx(statistics.stdev(TOP5[loss]))
    cells = markdown_cells(table_of(tmp_path))
    assert cells["BCE"] == [
        "3",
        "73.90 ± 0.40",
        "92.17 ± 0.21",
        "—",
        "73.88 ± 0.22",
        "92.03 ± 0.42",
        "+0.02",
        "+0.14",
    ]
    assert cells["(ii) background"][1] == "74.37 ± 0.32"
    # ttest_rel of 74.0, 74.5, 74.6 and 73.5, 73.9, 74.3: 0.4667 ± 4.3027 * 0.1528 / sqrt(3).
    assert cells["(ii) background"][3] == "+0.47 [+0.09, +0.85]"
    assert cells["(iii) both"][:3] == ["3", "73.40 ± 0.53", "91.40 ± 0.53"]


def test_the_papers_figures_are_those_of_the_supplement() -> None:
    figures = {
        loss: (row.top1_mean, row.top1_std, row.top5_mean, row.top5_std)
        for loss, row in read_published().items()
    }
    assert figures == {
        "bce": (73.88, 0.22, 92.03, 0.42),
        "anchor_target": (74.06, 0.53, 92.32, 0.24),
        "anchor_bg": (74.25, 0.34, 92.62, 0.50),
        "anchor_both": (73.90, 0.40, 92.24, 0.06),
    }


def test_damaged_published_figures_are_one_line(tmp_path: Path) -> None:
    for text in (
        "",
        "loss,label\nbce,BCE\n",
        "loss,label,top1_mean,top1_std,top5_mean,top5_std\nbce,BCE,x,1,1,1\n",
    ):
        (tmp_path / "table1.csv").write_text(text)
        if text:
            with pytest.raises(UserError, match=r"table1.csv: the paper's figures cannot be read"):
                read_published(tmp_path / "table1.csv")
    with pytest.raises(UserError):
        read_published(tmp_path / "absent.csv")


def test_rows_stand_in_the_papers_order_and_others_follow(tmp_path: Path) -> None:
    for loss in ("softmax", "anchor_both", "bce", "a_new_loss", "anchor_target", "anchor_bg"):
        finish_run(tmp_path, make_settings(loss))
    table = table_of(tmp_path)
    assert [row.loss for row in table.rows] == [*ANCHORS, "a_new_loss", "softmax"]
    assert markdown_cells(table)["softmax"][3:] == ["+0.00", "—", "—", "—", "—"]


def test_one_run_has_no_deviation_and_one_loss_is_not_best(tmp_path: Path) -> None:
    finish_run(tmp_path, make_settings(), top1=74.0)
    assert markdown_cells(table_of(tmp_path))["BCE"][:2] == ["1", "74.00 ± —"]


def test_only_a_winner_that_is_resolved_is_bold(tmp_path: Path) -> None:
    finish_all(tmp_path)
    assert not any(row.top1.best or row.top5.best for row in table_of(tmp_path).rows)
    for seed, top1 in enumerate((78.0, 78.5, 78.7)):
        finish_run(tmp_path, make_settings("anchor_target", seed), top1=top1, top5=93.0)
    table = table_of(tmp_path)
    assert [row.loss for row in table.rows if row.top1.best] == ["anchor_target"]
    assert markdown_cells(table)["(i) target"][1] == "**78.40 ± 0.36**"


def test_one_seed_each_has_no_winner(tmp_path: Path) -> None:
    finish_run(tmp_path, make_settings("bce"), top1=70.0)
    finish_run(tmp_path, make_settings("anchor_bg"), top1=90.0)
    assert "**" not in to_markdown(table_of(tmp_path))


def test_a_partial_sweep_is_compared_on_the_shared_seeds(tmp_path: Path) -> None:
    """BCE with two seeds, (iii) with one of them: the means differ by 4.35, the shared seed by nothing."""
    for seed, top1 in enumerate((70.0, 78.7)):
        finish_run(tmp_path, make_settings("bce", seed, experiment="part"), top1=top1)
    finish_run(tmp_path, make_settings("anchor_both", 0, experiment="part"), top1=70.0)
    table = table_of(tmp_path, "part")
    assert markdown_cells(table)["(iii) both"][3] == "+0.00"
    (row,) = [row for row in csv.DictReader(io.StringIO(to_csv(table))) if row["loss"] == "anchor_both"]
    assert float(row["top1_minus_bce"]) == 0.0


def test_no_run_is_dropped_in_silence(tmp_path: Path) -> None:
    finish_all(tmp_path)
    failed = finish_run(tmp_path, make_settings("bce", 3), failed=True)
    waiting = plan_run(tmp_path, make_settings("anchor_bg", 3))
    interrupted = interrupt_run(tmp_path, make_settings("anchor_target", 0))
    table = table_of(tmp_path)
    cells = markdown_cells(table)
    assert cells["BCE"][0] == "3 of 4 (1 failed)"
    assert cells["(ii) background"][0] == "3 of 4"
    assert cells["(iii) both"][0] == "3 of 4"
    assert cells["(i) target"][:3] == ["0 of 4", "not run", "not run"]
    assert table.notes == (
        f"failed: {failed.name}: non-finite loss in epoch 3, step 17, last finite loss 12.5",
        f"interrupted: {interrupted.name}",
        "not run: anchor_target seeds 1, 2, 3, which other losses have",
        f"waiting: {waiting.name}",
        "not run: anchor_both seed 3, which other losses have",
    )
    for text in (to_markdown(table), to_latex(table).replace("\\_", "_")):
        assert all(note in text for note in table.notes)


def test_a_table_of_failures_alone_shows_them(tmp_path: Path) -> None:
    finish_run(tmp_path, make_settings("bce"), failed=True)
    assert markdown_cells(table_of(tmp_path))["BCE"] == [
        *("0 of 1 (1 failed)", "—", "—", "—", "73.88 ± 0.22", "92.03 ± 0.42", "—", "—")
    ]


def test_a_failed_run_may_have_had_other_settings(tmp_path: Path) -> None:
    finish_run(tmp_path, make_settings("bce", 0))
    finish_run(tmp_path, make_settings("bce", 0, lr=10.0), failed=True)
    assert markdown_cells(table_of(tmp_path))["BCE"][0] == "1 (1 failed)"


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"lr": 0.05}, "optim.lr is 0.1 in one, 0.05 in the other"),
        ({"model": "resnet56"}, 'model.name is "resnet110" in one, "resnet56" in the other'),
        ({"epochs": 100}, "optim.epochs is 200 in one, 100 in the other"),
        ({"data": "cifar10"}, 'data.name is "cifar100" in one, "cifar10" in the other'),
        ({"softmax_warmup_epochs": 5}, "optim.softmax_warmup_epochs is 0 in one, 5 in the other"),
    ],
)
def test_other_settings_do_not_mix(tmp_path: Path, other: dict[str, Any], named: str) -> None:
    finish_run(tmp_path, make_settings("anchor_bg", 0))
    finish_run(tmp_path, make_settings("bce", 1, **other))
    with pytest.raises(UserError) as caught:
        table_of(tmp_path)
    for part in (named, make_settings("anchor_bg", 0).run, make_settings("bce", 1, **other).run):
        assert part in str(caught.value)


def test_settings_of_the_loss_differ_between_losses_but_not_within_one(tmp_path: Path) -> None:
    finish_run(tmp_path, make_settings("anchor_bg", 0))
    finish_run(tmp_path, make_settings("anchor_both", 0, gamma=1.0))
    finish_run(tmp_path, make_settings("anchor_both", 1, gamma=1.0))
    assert len(table_of(tmp_path).rows) == 2
    finish_run(tmp_path, make_settings("anchor_both", 2, gamma=2.0))
    with pytest.raises(UserError, match=r"loss\.gamma is 1\.0 in one, 2\.0 in the other"):
        table_of(tmp_path)


def test_other_data_under_the_same_name_does_not_mix(tmp_path: Path) -> None:
    finish_run(tmp_path, make_settings("bce", 0))
    folder = finish_run(tmp_path, make_settings("bce", 1))
    data = json.loads((folder / "record.json").read_text())["data"]
    edit_record(folder, data={**data, "checksum": "md5:other"})
    with pytest.raises(UserError, match=r"record\.data\.checksum"):
        table_of(tmp_path)


@pytest.mark.parametrize(
    ("settings", "stamp"),
    [
        ({"data": "synthetic"}, "SYNTHETIC data"),
        ({"data": "cifar10"}, "CIFAR-10 data"),
        ({"experiment": "table1_small"}, "NOT THE FULL PROTOCOL"),
        ({"epochs": 2}, "NOT THE FULL PROTOCOL (resnet110, 2 epochs)"),
        ({"model": "resnet8"}, "NOT THE FULL PROTOCOL (resnet8, 200 epochs)"),
    ],
)
def test_what_is_not_the_papers_experiment_is_stamped(
    tmp_path: Path, settings: dict[str, Any], stamp: str
) -> None:
    finish_run(tmp_path, make_settings("bce", **settings))
    table = table_of(tmp_path, settings.get("experiment", "table1"))
    headline = to_markdown(table).splitlines()[0]
    assert stamp in headline
    has_paper = settings.get("data") != "cifar10"
    assert ("paper Top-1 - BCE" in to_markdown(table)) is has_paper
    assert "73.88" not in to_markdown(table) + to_latex(table)
    assert stamp in to_latex(table)
    assert ("paper Top-1 - BCE" in to_latex(table)) is has_paper
    assert ",false," in to_csv(table)


def test_the_full_protocol_bears_no_stamp(tmp_path: Path) -> None:
    finish_all(tmp_path)
    table = table_of(tmp_path)
    assert table.stamps == ()
    assert "73.88 ± 0.22" in to_markdown(table)


def test_validation_is_stamped_and_does_not_mix_with_test(tmp_path: Path) -> None:
    held_out = {"validation": 5000, "evaluate_on": "validation"}
    runs = [make_settings("bce", 1), make_settings(experiment="other")]
    finish_run(tmp_path, make_settings("bce", 0))
    for run in runs:
        finish_run(tmp_path, replace(run, data=replace(run.data, **held_out)), images=5000)
    with pytest.raises(UserError, match=r"record\.evaluated_on"):
        table_of(tmp_path)
    table = table_of(tmp_path, "other")
    assert "VALIDATION" in table.title
    assert "5,000 validation images" in table.protocol


def test_csv_gives_all_digits(tmp_path: Path) -> None:
    finish_all(tmp_path)
    finish_run(tmp_path, make_settings("softmax"), top1=73.12)
    rows = {row["loss"]: row for row in csv.DictReader(io.StringIO(to_csv(table_of(tmp_path))))}
    assert float(rows["bce"]["top1_std"]) == pytest.approx(statistics.stdev(TOP1["bce"]), rel=1e-12)
    assert float(rows["anchor_bg"]["top1_minus_paper"]) == pytest.approx(
        statistics.fmean(TOP1["anchor_bg"]) - 74.25
    )
    assert float(rows["softmax"]["top1_mean"]) == 100 * (7312 / 10000)
    assert rows["softmax"]["top1_std"] == rows["softmax"]["paper_top1_mean"] == ""
    assert (rows["softmax"]["n"], rows["softmax"]["planned"]) == ("1", "3")
    ends = [float(rows["anchor_bg"][f"top1_minus_bce_{end}"]) for end in ("low", "high")]
    assert ends == pytest.approx(stats.ttest_rel(TOP1["anchor_bg"], TOP1["bce"]).confidence_interval())


def test_latex_is_escaped_and_balanced(tmp_path: Path) -> None:
    finish_run(tmp_path, make_settings("a_new_loss", experiment="my_sweep"))
    plan_run(tmp_path, make_settings("a_new_loss", 1, experiment="my_sweep"))
    text = to_latex(table_of(tmp_path, "my_sweep"))
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert "my\\_sweep" in body
    assert "_" not in body.replace("\\_", "")
    assert body.count("{") == body.count("}")
    assert body.count("$") % 2 == 0
    assert all(line.count("&") == 7 for line in body.splitlines() if line.startswith("    a new loss"))
    assert body.isascii()


def test_text_from_a_record_stays_text_in_every_format(tmp_path: Path) -> None:
    hostile = "CPU \\input{secrets} <img src=x onerror=y> | **=1+1** [a](javascript:b) `c` & $d$"
    folder = finish_run(tmp_path, make_settings("bce", experiment="+cmd.1"))
    provenance = json.loads((folder / "record.json").read_text())["provenance"]
    edit_record(folder, provenance={**provenance, "device": hostile})
    failed = finish_run(tmp_path, make_settings("bce", 1, experiment="+cmd.1"), failed=True)
    failure = json.loads((failed / "record.json").read_text())["failure"]
    edit_record(failed, failure={**failure, "reason": f"{hostile} \\write18{{id}}"})
    table = table_of(tmp_path, "+cmd.1")
    markdown, latex, text = to_markdown(table), to_latex(table), to_csv(table)
    for written in (markdown, latex, text):
        assert written.replace("\n", "").isprintable()
    live = [line for line in latex.splitlines() if not line.startswith("%")]
    assert not any("\\input" in line or "\\write" in line for line in live)
    prose = markdown.replace("\\\\", "")
    for mark in ("<", "|", "*", "["):
        lines = [line for line in prose.splitlines() if not line.startswith("|")]
        assert mark not in "\n".join(lines).replace(f"\\{mark}", "")
    assert next(csv.DictReader(io.StringIO(text)))["experiment"] == "'+cmd.1"


def test_the_script_writes_three_files_and_prints_the_table(tmp_path: Path) -> None:
    finish_all(tmp_path)
    done = run_script(tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""
    folder = tmp_path / "table1"
    assert done.stdout.startswith(plain_text((folder / "table1.md").read_text(), 80))
    assert sorted(path.name for path in folder.iterdir()) == ["table1.csv", "table1.md", "table1.tex"]
    before = everything_in(folder)
    shutil.rmtree(folder)
    make_table(tmp_path, "table1")
    assert everything_in(folder) == before


def test_without_records_the_script_says_what_to_run(tmp_path: Path) -> None:
    done = run_script(tmp_path, "--experiment", "quickstart")
    assert done.returncode == 2
    assert done.stderr == (
        "error: experiment=quickstart: there are no runs, so there is no table; "
        "run python train.py experiment=quickstart\n"
    )
    plan_run(tmp_path, make_settings())
    assert "none of the 1 runs has ended" in run_script(tmp_path).stderr
    assert not (tmp_path / "table1").exists()


def test_a_damaged_record_is_one_line_and_nothing_is_written(tmp_path: Path) -> None:
    finish_run(tmp_path, make_settings("bce", 0))
    path = finish_run(tmp_path, make_settings("bce", 1)) / "record.json"
    path.write_bytes(path.read_bytes()[:200])
    before = everything_in(tmp_path)
    done = run_script(tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {path}: ")
    assert done.stderr.count("\n") == 1
    assert everything_in(tmp_path) == before


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    finish_run(tmp_path, make_settings())
    (tmp_path / "table1").touch()
    done = run_script(tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path}/table1: cannot be made")
    assert done.stderr.count("\n") == 1


def test_tables_need_no_torch() -> None:
    code = "import sys, anchorloss.report.table_text; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
