from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from anchorloss.errors import RunError, UserError
from anchorloss.runs.claims import Claim
from anchorloss.runs.folder import RunFolder, read_run, read_runs, verify_files
from anchorloss.runs.merge import copy_run, plan_merge
from tests.commands import Done, call
from tests.run_folders import ANCHORS, finish_run, interrupt_run, make_record, make_settings, plan_run
from tests.small_disk import small_disk

ROOT = Path(__file__).resolve().parents[2]
SHORT = {"epochs": 3}


def merge(sources: list[Path], into: Path) -> tuple[list[tuple[RunFolder, Path]], list[str]]:
    plan = plan_merge(sources, into)
    for run, target in plan[0]:
        copy_run(run, target)
    return plan


def run_script(*arguments: Path | str) -> Done:
    return call("merge_results.py", *arguments)


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def two_machines(tmp_path: Path) -> tuple[Path, Path]:
    """Two results folders that share the runs out: `a` has seed 0, `b` seed 1, both have seed 2."""
    a, b = tmp_path / "a", tmp_path / "b"
    for loss in ("bce", "anchor_bg"):
        for seed, machines in ((0, [a]), (1, [b]), (2, [a, b])):
            for machine in machines:
                finish_run(machine, make_settings(loss, seed, **SHORT), host=machine.name, top1=70.0 + seed)
    return a, b


def test_the_runs_of_two_machines_come_together(two_machines: tuple[Path, Path], tmp_path: Path) -> None:
    into = tmp_path / "results"
    plan = merge(list(two_machines), into)
    assert len(plan[0]) == 6
    assert len(plan[1]) == 2
    runs = read_runs(into, "table1")
    assert [(run.loss, run.seed, run.state) for run in runs] == [
        (loss, seed, "finished") for loss in ("anchor_bg", "bce") for seed in range(3)
    ]
    for run in runs:
        assert run.record is not None
        verify_files(run.folder, run.record)
        source = two_machines[0] if run.seed in (0, 2) else two_machines[1]
        assert everything_in(run.folder) == everything_in(source / "runs" / "table1" / run.name)
    assert {path.name for path in (into / "runs" / "table1").iterdir()} == {run.name for run in runs}


def test_merging_again_changes_nothing(two_machines: tuple[Path, Path], tmp_path: Path) -> None:
    into = tmp_path / "results"
    merge(list(two_machines), into)
    before = everything_in(into)
    plan = merge([*two_machines, into], into)
    assert plan[0] == []
    assert len(plan[1]) == 14
    assert everything_in(into) == before


@pytest.mark.parametrize("part", [".", "runs", "runs/table1"])
def test_a_source_is_a_results_folder_its_runs_or_one_experiment(
    two_machines: tuple[Path, Path], tmp_path: Path, part: str
) -> None:
    merge([two_machines[0] / part], tmp_path / "results")
    assert len(read_runs(tmp_path / "results", "table1")) == 4


def test_an_experiments_folder_may_have_got_another_name(
    two_machines: tuple[Path, Path], tmp_path: Path
) -> None:
    renamed = (two_machines[0] / "runs" / "table1").rename(tmp_path / "from the other machine")
    merge([renamed], tmp_path / "results")
    assert len(read_runs(tmp_path / "results", "table1")) == 4


def test_failed_runs_merge_too_and_unfinished_ones_stay(tmp_path: Path) -> None:
    failed = finish_run(tmp_path / "a", make_settings("bce", 0), failed=True)
    interrupted = interrupt_run(tmp_path / "a", make_settings("bce", 1))
    waiting = plan_run(tmp_path / "a", make_settings("bce", 2))
    plan = merge([tmp_path / "a"], tmp_path / "results")
    assert [run.name for run in read_runs(tmp_path / "results", "table1")] == [failed.name]
    assert sorted(plan[1]) == [
        f"{interrupted}: interrupted, not ended",
        f"{waiting}: waiting, not ended",
    ]


def test_conflicts_are_all_named_and_nothing_is_written(
    two_machines: tuple[Path, Path], tmp_path: Path
) -> None:
    a, b = two_machines
    conflicts = []
    for loss in ("bce", "anchor_bg"):
        folder = b / "runs" / "table1" / make_settings(loss, 2, **SHORT).run
        shutil.rmtree(folder)
        finish_run(b, make_settings(loss, 2, **SHORT), top1=71.99, host=b.name)
        conflicts.append(folder)
    into = tmp_path / "results"
    done = run_script(a, b, "--into", into)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    for folder in conflicts:
        assert f"{a / 'runs' / 'table1' / folder.name} and {folder} (top1 72.0 and 71.99)" in done.stderr
    assert not into.exists()


def test_a_result_does_not_replace_another_one_at_the_target(tmp_path: Path) -> None:
    finish_run(tmp_path / "a", make_settings(), top1=74.0)
    finish_run(tmp_path / "a", make_settings(seed=1), top1=74.0)
    finish_run(tmp_path / "results", make_settings(), failed=True)
    before = everything_in(tmp_path / "results")
    with pytest.raises(UserError, match="two results for one run"):
        merge([tmp_path / "a"], tmp_path / "results")
    assert everything_in(tmp_path / "results") == before


def test_an_unfinished_run_gets_the_result_that_another_machine_has(tmp_path: Path) -> None:
    finished = finish_run(tmp_path / "a", make_settings("bce", 0, **SHORT))
    failed = make_record(make_settings("bce", 0, **SHORT), failed=True)
    (finished / "failed-1.json").write_text(failed.to_json())
    target = interrupt_run(tmp_path / "results", make_settings("bce", 0, **SHORT))
    (target / "history.csv").write_text("old")
    merge([tmp_path / "a"], tmp_path / "results")
    assert read_run(target).state == "finished"
    assert everything_in(target) == everything_in(finished)
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_a_run_in_progress_at_the_target_is_left_alone(tmp_path: Path) -> None:
    finish_run(tmp_path / "a", make_settings("bce", 0, **SHORT))
    finish_run(tmp_path / "a", make_settings("bce", 1, **SHORT))
    target = interrupt_run(tmp_path / "results", make_settings("bce", 0, **SHORT))
    claim = Claim(target)
    plan = plan_merge([tmp_path / "a"], tmp_path / "results")
    assert claim.acquire()
    try:
        before = everything_in(tmp_path / "results")
        with pytest.raises(UserError, match="in progress"):
            plan_merge([tmp_path / "a"], tmp_path / "results")
        (copy,) = [(run, folder) for run, folder in plan[0] if run.seed == 0]
        with pytest.raises(RunError, match="another process works on this run"):
            copy_run(*copy)
        assert everything_in(tmp_path / "results") == before
    finally:
        claim.release()


@pytest.mark.parametrize("damage", ["record", "history", "predictions", "missing"])
def test_damage_is_one_line_and_nothing_is_written(
    two_machines: tuple[Path, Path], tmp_path: Path, damage: str
) -> None:
    folder = two_machines[1] / "runs" / "table1" / make_settings("bce", 2, **SHORT).run
    path = folder / {"record": "record.json", "history": "history.csv"}.get(damage, "predictions.npz")
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-20])
    done = run_script(*two_machines, "--into", tmp_path / "results")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {path}: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_only_the_runs_own_files_are_copied(tmp_path: Path) -> None:
    folder = finish_run(tmp_path / "a", make_settings(**SHORT))
    for name in (
        "checkpoint.pt",
        "checkpoint.previous.pt",
        "progress.json",
        "claim.lock",
        ".history.csv.ab.writing",
    ):
        (folder / name).touch()
    (folder / "notes").mkdir()
    (folder / "notes" / "why.txt").write_text("of somebody")
    (folder / "weights.safetensors").write_text("named by no record")
    merge([tmp_path / "a"], tmp_path / "results")
    (copy,) = (tmp_path / "results" / "runs" / "table1").iterdir()
    assert set(everything_in(copy)) == {*("config.yaml", "history.csv", "predictions.npz", "record.json")}


def test_a_full_disk_leaves_whole_runs_only_and_merging_goes_on(tmp_path: Path) -> None:
    for loss in ANCHORS:
        finish_run(tmp_path / "a", make_settings(loss, **SHORT), images=2000)
    size = sum(len(content) for content in everything_in(tmp_path / "a").values())
    with small_disk(tmp_path / "results", kibibytes=size // 1024 * 3 // 4) as into:
        done = run_script(tmp_path / "a", "--into", into)
        assert done.returncode == 1
        assert "No space left on device" in done.stderr
        assert done.stderr.count("\n") == 1
        runs = read_runs(into, "table1")
        assert 0 < len(runs) < len(ANCHORS)
        assert {path.name for path in (into / "runs" / "table1").iterdir()} == {run.name for run in runs}
        for run in runs:
            assert run.record is not None
            verify_files(run.folder, run.record)
        shutil.copytree(into, tmp_path / "larger")
    assert len(merge([tmp_path / "a"], tmp_path / "larger")[0]) == len(ANCHORS) - len(runs)
    assert len(read_runs(tmp_path / "larger", "table1")) == len(ANCHORS)


def test_sources_that_hold_no_runs_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "absent", tmp_path / "empty"):
        done = run_script(source, "--into", tmp_path / "results")
        assert done.returncode == 2
        assert f"{source}: holds no runs" in done.stderr


def test_the_script_says_what_it_did(two_machines: tuple[Path, Path], tmp_path: Path) -> None:
    done = run_script(*two_machines, "--into", tmp_path / "results")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["copied"] * 6 + ["skipped"] * 2 + ["6"]
    assert lines[-1] == "6 copied, 2 skipped"
    assert json.loads(next((tmp_path / "results").rglob("record.json")).read_text())["format"] == 1
