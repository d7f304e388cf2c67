"""Runs of several machines come together: whole, never over another result, or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from anchorloss.errors import RunError, UserError
from anchorloss.runs.claims import Claim
from anchorloss.runs.folder import RunFolder, read_run, read_runs, verify_files
from anchorloss.runs.merge import copy_run, plan_merge
from tests.commands import call
from tests.run_folders import ANCHORS, finish_run, interrupt_run, make_record, make_settings, plan_run
from tests.small_disk import small_disk

SHORT = {"epochs": 3}


def merge(sources: list[Path], into: Path) -> tuple[list[tuple[RunFolder, Path]], list[str]]:
    plan = plan_merge(sources, into)
    for run, target in plan[0]:
        copy_run(run, target)
    return plan


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
    done = call("merge_results.py", *two_machines, "--into", into)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["copied"] * 6 + ["skipped"] * 2 + ["6"]
    runs = read_runs(into, "table1")
    assert [(run.loss, run.seed, run.state) for run in runs] == [
        (loss, seed, "finished") for loss in ("anchor_bg", "bce") for seed in range(3)
    ]
    for run in runs:
        source = two_machines[0] if run.seed in (0, 2) else two_machines[1]
        assert everything_in(run.folder) == everything_in(source / "runs" / "table1" / run.name)
    before = everything_in(into)
    copies, skipped = merge([*two_machines, into], into)
    assert (copies, len(skipped)) == ([], 14)
    assert everything_in(into) == before


def test_a_source_is_a_results_folder_its_runs_or_one_experiment(two_machines, tmp_path: Path) -> None:
    """Which may have got another name."""
    renamed = shutil.copytree(two_machines[0] / "runs" / "table1", tmp_path / "from the other machine")
    for number, source in enumerate((two_machines[0], two_machines[0] / "runs", renamed)):
        merge([source], tmp_path / str(number))
        assert len(read_runs(tmp_path / str(number), "table1")) == 4
    for source in (tmp_path / "absent", tmp_path / "runs"):
        with pytest.raises(UserError, match=f"{source}: holds no runs"):
            plan_merge([source], tmp_path / "into")


def test_failed_runs_merge_too_and_unfinished_ones_stay(tmp_path: Path) -> None:
    failed = finish_run(tmp_path / "a", make_settings("bce", 0), failed=True)
    interrupted = interrupt_run(tmp_path / "a", make_settings("bce", 1))
    waiting = plan_run(tmp_path / "a", make_settings("bce", 2))
    _, skipped = merge([tmp_path / "a"], tmp_path / "results")
    assert [run.name for run in read_runs(tmp_path / "results", "table1")] == [failed.name]
    assert sorted(skipped) == [f"{interrupted}: interrupted, not ended", f"{waiting}: waiting, not ended"]


def test_conflicts_are_all_named_and_nothing_is_written(two_machines, tmp_path: Path) -> None:
    a, b = two_machines
    conflicts = []
    for loss in ("bce", "anchor_bg"):
        folder = b / "runs" / "table1" / make_settings(loss, 2, **SHORT).run
        shutil.rmtree(folder)
        conflicts.append(finish_run(b, make_settings(loss, 2, **SHORT), top1=71.99, host=b.name))
    into = tmp_path / "results"
    done = call("merge_results.py", a, b, "--into", into)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    for folder in conflicts:
        assert f"{a / 'runs' / 'table1' / folder.name} and {folder} (top1 72.0 and 71.99)" in done.stderr
    assert not into.exists()


def test_a_result_does_not_replace_another_one_at_the_target(tmp_path: Path) -> None:
    for seed in (0, 1):
        finish_run(tmp_path / "a", make_settings(seed=seed))
    finish_run(tmp_path / "results", make_settings(), failed=True)
    before = everything_in(tmp_path / "results")
    with pytest.raises(UserError, match="two results for one run"):
        merge([tmp_path / "a"], tmp_path / "results")
    assert everything_in(tmp_path / "results") == before


def test_an_unfinished_run_gets_the_result_that_another_machine_has(tmp_path: Path) -> None:
    """And the records of its earlier failures, but nothing that is somebody's."""
    finished = finish_run(tmp_path / "a", make_settings("bce", 0, **SHORT))
    failed = make_record(make_settings("bce", 0, **SHORT), failed=True)
    (finished / "failed-1.json").write_text(failed.to_json())
    expected = everything_in(finished)
    for name in (
        "checkpoint.pt",
        "progress.json",
        "claim.lock",
        ".history.csv.ab.writing",
        "weights.safetensors",
    ):
        (finished / name).touch()
    target = interrupt_run(tmp_path / "results", make_settings("bce", 0, **SHORT))
    (target / "history.csv").write_text("old")
    merge([tmp_path / "a"], tmp_path / "results")
    assert read_run(target).state == "finished"
    assert everything_in(target) == expected


def test_a_run_in_progress_at_the_target_is_left_alone(tmp_path: Path) -> None:
    for seed in (0, 1):
        finish_run(tmp_path / "a", make_settings("bce", seed, **SHORT))
    target = interrupt_run(tmp_path / "results", make_settings("bce", 0, **SHORT))
    claim = Claim(target)
    copies, _ = plan_merge([tmp_path / "a"], tmp_path / "results")
    assert claim.acquire()
    try:
        before = everything_in(tmp_path / "results")
        with pytest.raises(UserError, match="in progress"):
            plan_merge([tmp_path / "a"], tmp_path / "results")
        with pytest.raises(RunError, match="another process works on this run"):
            copy_run(*next(copy for copy in copies if copy[0].seed == 0))
        assert everything_in(tmp_path / "results") == before
    finally:
        claim.release()
    copy_run(*copies[0])
    with pytest.raises(RunError, match="has just finished this run"):
        copy_run(*copies[0])
    assert read_run(copies[0][1]).state == "finished"


@pytest.mark.parametrize("name", ["record.json", "history.csv", "predictions.npz"])
def test_damage_is_one_line_and_nothing_is_written(two_machines, tmp_path: Path, name: str) -> None:
    path = two_machines[1] / "runs" / "table1" / make_settings("bce", 2, **SHORT).run / name
    path.write_bytes(path.read_bytes()[:-20])
    done = call("merge_results.py", *two_machines, "--into", tmp_path / "results")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {path}: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_a_full_disk_leaves_whole_runs_only_and_merging_goes_on(tmp_path: Path) -> None:
    for loss in ANCHORS:
        finish_run(tmp_path / "a", make_settings(loss, **SHORT), images=2000)
    size = sum(len(content) for content in everything_in(tmp_path / "a").values())
    with small_disk(tmp_path / "results", kibibytes=size // 1024 * 3 // 4) as into:
        done = call("merge_results.py", tmp_path / "a", "--into", into)
        assert done.returncode == 1
        assert "No space left on device" in done.stderr
        assert done.stderr.count("\n") == 1
        runs = read_runs(into, "table1")
        assert 0 < len(runs) < len(ANCHORS)
        for run in runs:
            assert run.record is not None
            verify_files(run.folder, run.record)
        shutil.copytree(into, tmp_path / "larger")
    assert len(merge([tmp_path / "a"], tmp_path / "larger")[0]) == len(ANCHORS) - len(runs)
    assert len(read_runs(tmp_path / "larger", "table1")) == len(ANCHORS)
