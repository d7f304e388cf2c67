from __future__ import annotations

import json
import random
import shutil
import stat
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anchorloss.errors import RunError, UserError
from anchorloss.runs import checkpoint
from anchorloss.runs.claims import Claim
from anchorloss.runs.folder import RunFolder, read_record, read_run, read_runs, verify_files
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


def test_a_copied_folder_has_the_permissions_of_an_ordinary_one(
    two_machines: tuple[Path, Path], tmp_path: Path
) -> None:
    (run, target), *_ = merge([two_machines[0]], tmp_path / "results")[0]
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(run.folder.stat().st_mode)


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


@pytest.mark.parametrize("damage", ["record", "history", "predictions", "missing", "config"])
def test_damage_is_one_line_and_nothing_is_written(
    two_machines: tuple[Path, Path], tmp_path: Path, damage: str
) -> None:
    folder = two_machines[1] / "runs" / "table1" / make_settings("bce", 2, **SHORT).run
    path = folder / {"record": "record.json", "history": "history.csv", "config": "config.yaml"}.get(
        damage, "predictions.npz"
    )
    if damage == "missing":
        path.unlink()
    elif damage == "config":
        path.write_text("a: [")
    else:
        path.write_bytes(path.read_bytes()[:-20])
    done = run_script(*two_machines, "--into", tmp_path / "results")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {path}: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draw=st.randoms(use_true_random=False))
def test_what_a_damaged_record_lets_through_is_whole(tmp_path_factory, draw: random.Random) -> None:
    """Whatever happens to a record, a merge ends in one line and no file, or in a run that verifies."""
    folder = tmp_path_factory.mktemp("merge")
    path = finish_run(folder / "a", make_settings("bce", 0, epochs=2), images=50) / "record.json"
    content = bytearray(path.read_bytes())
    for _ in range(draw.randrange(1, 3)):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    if draw.random() < 0.3:
        del content[draw.randrange(len(content)) :]
    path.write_bytes(content)
    try:
        merge([folder / "a"], folder / "results")
    except UserError as error:
        problem = str(error)
    else:
        problem = None
    if problem is not None:
        assert len(problem.splitlines()) == 1
        assert not (folder / "results").exists()
    else:
        (copy,) = (folder / "results" / "runs").glob("*/*")
        record = read_record(copy)
        assert record is not None
        verify_files(copy, record)


def test_only_the_runs_own_files_are_copied(tmp_path: Path) -> None:
    folder = finish_run(tmp_path / "a", make_settings(**SHORT))
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (folder / "link").symlink_to(secret)
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
    (folder / "failed-1.json").write_text("{}")
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
    for source, problem in ((tmp_path / "absent", "not a folder"), (tmp_path / "empty", "holds no runs")):
        done = run_script(source, "--into", tmp_path / "results")
        assert done.returncode == 2
        assert f"{source}: {problem}" in done.stderr


def test_the_script_says_what_it_did(two_machines: tuple[Path, Path], tmp_path: Path) -> None:
    done = run_script(*two_machines, "--into", tmp_path / "results")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["copied"] * 6 + ["skipped"] * 2 + ["6"]
    assert lines[-1] == "6 copied, 2 skipped"
    assert json.loads(next((tmp_path / "results").rglob("record.json")).read_text())["format"] == 1


@pytest.mark.parametrize("name", ["record.json", "history.csv", "config.yaml", "predictions.npz"])
def test_links_in_a_source_are_refused(tmp_path: Path, name: str) -> None:
    path = finish_run(tmp_path / "a", make_settings(**SHORT)) / name
    path.rename(tmp_path / name)
    path.symlink_to(tmp_path / name)
    with pytest.raises(UserError, match="a link"):
        plan_merge([tmp_path / "a"], tmp_path / "results")
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(UserError, match="a link"):
        plan_merge([tmp_path / "a"], tmp_path / "results")


def test_a_linked_run_folder_is_refused(tmp_path: Path) -> None:
    folder = finish_run(tmp_path / "b", make_settings(**SHORT))
    (tmp_path / "a" / "runs" / "table1").mkdir(parents=True)
    (tmp_path / "a" / "runs" / "table1" / folder.name).symlink_to(folder)
    with pytest.raises(UserError, match="a link"):
        plan_merge([tmp_path / "a"], tmp_path / "results")


def test_strange_sources_and_targets_are_one_line(tmp_path: Path) -> None:
    finish_run(tmp_path / "a", make_settings(**SHORT))
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for place in ("runs", "runs/table1", f"runs/table1/{make_settings(**SHORT).run}"):
        blocked = tmp_path / place.replace("/", "_") / place
        blocked.parent.mkdir(parents=True)
        blocked.write_text("in the way")
    cases = [
        *[(source, tmp_path / "into") for source in (Path("/proc"), tmp_path / "loop", tmp_path / "file")],
        *[(tmp_path / "a", tmp_path / into) for into in ("file", "runs", "runs_table1")],
        (tmp_path / "a", tmp_path / f"runs_table1_{make_settings(**SHORT).run}"),
    ]
    for source, into in cases:
        done = call("merge_results.py", source, "--into", into)
        assert done.returncode == 2, (source, into, done.stderr)
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "into").exists()


def test_a_huge_file_beside_a_record_is_refused_unread(tmp_path: Path) -> None:
    folder = finish_run(tmp_path / "a", make_settings(**SHORT))
    for name in ("history.csv", "record.json"):
        with (folder / name).open("r+b") as file:
            file.truncate(3 << 30)
        with pytest.raises(UserError, match="larger than"):
            plan_merge([tmp_path / "a"], tmp_path / "results")


def test_a_config_that_contradicts_its_record_is_refused(tmp_path: Path) -> None:
    path = finish_run(tmp_path / "a", make_settings(**SHORT)) / "config.yaml"
    path.write_text(path.read_text().replace("lr: 0.1", "lr: 0.2"))
    with pytest.raises(UserError, match=r"optim\.lr is 0\.2, and 0\.1 in record\.json"):
        plan_merge([tmp_path / "a"], tmp_path / "results")


def checkpoint_at(folder: Path, epoch: int, step: int) -> bytes:
    state = {"trainer": {"step_in_epoch": step, "network": torch.zeros(3)}, "epoch": epoch}
    checkpoint.save(folder, folder.name.rpartition("-")[2], state)
    return (folder / "checkpoint.pt").read_bytes()


def test_unfinished_runs_come_along_with_their_newest_checkpoint(tmp_path: Path) -> None:
    run = make_settings("bce", 1, **SHORT)
    folders = [interrupt_run(tmp_path / name, run) for name in ("a", "b", "results")]
    old, new, here = (
        checkpoint_at(folder, 1, step) for folder, step in zip(folders, (30, 70, 50), strict=True)
    )
    ended = finish_run(tmp_path / "a", make_settings("bce", 2, **SHORT))
    fresh = interrupt_run(tmp_path / "b", make_settings("anchor_bg", 1, **SHORT))
    content = checkpoint_at(fresh, 0, 5)
    done = call(
        "merge_results.py", tmp_path / "a", tmp_path / "b", "--into", tmp_path / "results", "--unfinished"
    )
    assert done.returncode == 0, done.stderr
    target = folders[2]
    assert (target / "checkpoint.pt").read_bytes() == new
    assert (target / "checkpoint.previous.pt").read_bytes() == here
    copy = target.with_name(fresh.name)
    assert (copy / "checkpoint.pt").read_bytes() == content
    assert (copy / "config.yaml").read_bytes() == (fresh / "config.yaml").read_bytes()
    assert read_run(copy).state == "interrupted"
    assert read_run(target.with_name(ended.name)).state == "finished"
    assert old != new
    again = call(
        "merge_results.py", tmp_path / "a", tmp_path / "b", "--into", tmp_path / "results", "--unfinished"
    )
    assert again.stdout.splitlines()[-1].startswith("0 copied")
    assert (target / "checkpoint.pt").read_bytes() == new


def test_an_unfinished_run_whose_folder_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    folder = interrupt_run(tmp_path / "a", make_settings())
    checkpoint_at(folder, 3, 1)
    done = call("merge_results.py", tmp_path / "a", "--into", "/proc/results", "--unfinished")
    assert done.returncode == 1
    assert "/proc/results" in done.stderr
    assert done.stderr.endswith("name another --into\n")


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(tmp_path: Path) -> None:
    folder = interrupt_run(tmp_path / "a", make_settings("bce", 1, **SHORT))
    (folder / "checkpoint.pt").unlink()
    earlier = checkpoint_at(folder, 1, 10)
    checkpoint_at(folder, 1, 20)
    damaged = bytearray((folder / "checkpoint.pt").read_bytes())
    damaged[-100] ^= 1
    (folder / "checkpoint.pt").write_bytes(damaged)
    waiting = plan_run(tmp_path / "a", make_settings("bce", 2, **SHORT))
    done = call("merge_results.py", tmp_path / "a", "--into", tmp_path / "results", "--unfinished")
    assert done.returncode == 0
    target = tmp_path / "results" / "runs" / "table1"
    assert (target / folder.name / "checkpoint.pt").read_bytes() == earlier
    assert not (target / waiting.name).exists()
    assert "no whole checkpoint" in done.stdout
