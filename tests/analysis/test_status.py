from __future__ import annotations

import json
from pathlib import Path

import pytest

from anchorloss.runs.claims import Claim
from anchorloss.runs.folder import Progress, write_progress
from tests.commands import Done, call
from tests.run_folders import edit_record, finish_run, interrupt_run, make_settings, plan_run


def run_script(results: Path, *arguments: str) -> Done:
    return call("status.py", "--results-dir", results, *arguments)


def test_each_run_has_its_line(tmp_path: Path) -> None:
    finish_run(tmp_path, make_settings("bce", 0), top1=73.88)
    finish_run(tmp_path, make_settings("anchor_bg", 0), failed=True)
    interrupt_run(tmp_path, make_settings("anchor_bg", 1), epoch=7)
    running = plan_run(tmp_path, make_settings("bce", 10))
    plan_run(tmp_path, make_settings("bce", 2))
    said = Progress(
        epoch=12,
        epochs=200,
        top1=41.25,
        seconds_left=5400.0,
    )
    write_progress(running, said)
    claim = Claim(running)
    assert claim.acquire()
    try:
        done = run_script(tmp_path, "--experiment", "table1")
    finally:
        claim.release()
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "table1: 5 runs: 1 finished, 1 running, 1 failed, 1 interrupted, 1 waiting"
    assert lines.pop(7).strip() == "non-finite loss in epoch 3, step 17, last finite loss 12.5"
    listed = [line.split(maxsplit=2) for line in lines[3:8]]
    names = [
        make_settings(*run).run
        for run in (("bce", 0), ("bce", 2), ("bce", 10), ("anchor_bg", 0), ("anchor_bg", 1))
    ]
    assert [line[1] for line in listed] == names
    assert [line[0] for line in listed] == ["finished", "waiting", "running", "failed", "interrupted"]
    assert [" ".join("".join(line[2:]).split()) for line in listed] == [
        "200/200 73.88 in 1.0 h",
        "",
        "12/200 41.25 1.5 h left",
        "3/200",
        "7/200 31.25",
    ]
    columns = [line.index(name) for line, name in zip(lines[3:8], names, strict=True)]
    assert len(set(columns)) == 1
    assert "BCE " in done.stdout
    assert f"- running: {running.name}" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_all_experiments_are_shown_by_default(tmp_path: Path) -> None:
    finish_run(tmp_path, make_settings(experiment="smoke"))
    plan_run(tmp_path, make_settings(experiment="later"))
    (tmp_path / "runs" / "empty").mkdir()
    done = run_script(tmp_path)
    assert done.returncode == 0
    assert "later: 1 run: 1 waiting" in done.stdout
    assert "smoke: 1 run: 1 finished" in done.stdout
    assert done.stdout.count("Table 1, ") == 1


def test_runs_of_a_sweep_are_told_apart_by_their_setting(tmp_path: Path) -> None:
    finish_run(tmp_path, make_settings("bce", 0), top1=73.88)
    plan_run(tmp_path, make_settings("bce", 1, lr=0.05))
    finish_run(tmp_path, make_settings("bce", 1, lr=0.2), top1=71.25)
    done = run_script(tmp_path)
    assert done.returncode == 0
    listed = [line.split("  ")[1].strip() for line in done.stdout.splitlines() if ", optim.lr" in line]
    assert listed == [f"bce seed {seed}, optim.lr {lr}" for seed, lr in ((0, 0.1), (1, 0.05), (1, 0.2))]
    assert "by setting" in done.stdout
    assert not (tmp_path / "table1").exists()


def test_a_failed_run_at_another_setting_is_a_note_below_table_1(tmp_path: Path) -> None:
    """One that was only tried, as a learning rate of a million."""
    finish_run(tmp_path, make_settings("bce", 0), top1=73.88)
    failed = make_settings("bce", 0, lr=1e6)
    finish_run(tmp_path, failed, failed=True)
    done = run_script(tmp_path)
    assert done.returncode == 0
    assert "Table 1, " in done.stdout
    assert f"- failed: {failed.run}" in " ".join(done.stdout.split())


def test_runs_that_do_not_fit_in_one_table_are_still_listed(tmp_path: Path) -> None:
    finish_run(tmp_path, make_settings("bce", 0))
    folder = finish_run(tmp_path, make_settings("bce", 1))
    data = json.loads((folder / "record.json").read_text())["data"]
    edit_record(folder, data={**data, "checksum": "md5:0"})
    done = run_script(tmp_path)
    assert done.returncode == 0
    assert "table1: 2 runs: 2 finished" in done.stdout
    assert "No table: " in done.stdout
    assert "checksum is" in " ".join(done.stdout.split())


@pytest.mark.parametrize("arguments", [(), ("--experiment", "table1")])
def test_no_runs_at_all_is_one_line_with_the_remedy(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run_script(tmp_path, *arguments)
    assert done.returncode == 2
    assert "python train.py" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_damaged_record_is_one_line(tmp_path: Path) -> None:
    path = finish_run(tmp_path, make_settings()) / "record.json"
    path.write_bytes(b"\x00\xff")
    finish_run(tmp_path, make_settings(experiment="whole"))
    done = run_script(tmp_path)
    assert done.returncode == 2
    assert "whole: 1 run: 1 finished" in done.stdout
    assert done.stderr.startswith(f"error: {path}: ")
    assert done.stderr.count("\n") == 1


def test_progress_that_cannot_be_read_does_not_stop_the_display(tmp_path: Path) -> None:
    folder = interrupt_run(tmp_path, make_settings())
    (folder / "progress.json").write_text("{")
    done = run_script(tmp_path)
    assert done.returncode == 0
    assert "interrupted" in done.stdout
