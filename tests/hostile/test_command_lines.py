"""Hostile command lines for `train.py` and the scripts: one line, status 2, nothing written, no hang."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.commands import Done, call
from tests.conftest import SMALL
from tests.run_folders import finish_run, make_settings

# What reads an experiment's records.
READERS = (
    "make_table1.py",
    "report.py",
    "status.py",
)
NAMES = (
    "",
    " ",
    ".",
    "..",
    "../up",
    "a/b",
    "/etc",
    "-m",
    "nothing",
    "x" * 300,
    "two\nlines",
    "\x1b[31mred",
    "ü",
    "a\udc80b",
    "table1*",
    "${oc.env:HOME}",
)


@pytest.fixture
def places(tmp_path) -> dict[str, str]:
    """Names for paths that are not what a command takes them for."""
    inside = tmp_path / "places"
    inside.mkdir()
    (inside / "file").write_text("not a folder\n")
    (inside / "bytes").write_bytes(bytes(range(256)))
    (inside / "empty").write_text("")
    (inside / "dangling").symlink_to(inside / "gone")
    (inside / "loop").symlink_to(inside / "loop")
    (inside / "folder").mkdir()
    os.mkfifo(inside / "fifo")
    found = {path.name: str(path) for path in inside.iterdir()}
    return {
        **found,
        "missing": str(inside / "missing"),
        "below a file": str(inside / "file" / "below"),
        "long": str(inside / ("x" * 300)),
        "null": "/dev/null",
        "zero": "/dev/zero",
        "memory": "/proc/self/mem",
    }


def everything(folder: Path) -> set[Path]:
    """What is in a folder, links not followed."""
    return set(folder.rglob("*"))


def refused(done: Done, *, usage: bool = True) -> None:
    """One line on stderr and status 2, or, where it is allowed, argparse's usage."""
    assert done.returncode == 2, done
    lines = done.stderr.splitlines()
    if usage and lines and lines[0].startswith("usage: "):
        assert ": error: " in lines[-1]
        return
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert "unexpected" not in lines[0], lines[0]
    assert "\x1b" not in lines[0]
    assert len(lines[0]) < 1300


@pytest.mark.parametrize("script", READERS)
def test_names_that_are_no_experiment(tmp_path, script):
    finish_run(tmp_path / "results", make_settings())
    before = everything(tmp_path)
    for name in NAMES:
        done = call(script, f"--experiment={name}", "--results-dir", tmp_path / "results", seconds=30)
        refused(done)
        assert everything(tmp_path) == before, name


@pytest.mark.parametrize("script", READERS)
def test_results_folders_that_are_none(tmp_path, places, script):
    before = everything(tmp_path)
    for place in (*places.values(), ""):
        refused(call(script, "--experiment=table1", f"--results-dir={place}", seconds=30))
    assert everything(tmp_path) == before


def test_an_experiment_that_is_not_a_folder(tmp_path, places):
    for name, place in places.items():
        parent = tmp_path / "results" / "runs"
        shutil.rmtree(tmp_path / "results", ignore_errors=True)
        parent.mkdir(parents=True)
        (parent / "table1").symlink_to(place)
        for script in ("make_table1.py", "status.py"):
            done = call(script, "--experiment=table1", "--results-dir", tmp_path / "results", seconds=30)
            assert done.returncode == 2, (name, done)
            refused(done)


def test_merge_results(tmp_path, places):
    into = tmp_path / "results"
    finish_run(tmp_path / "other", make_settings())
    for name, place in places.items():
        refused(call("merge_results.py", place, "--into", into, seconds=30))
        assert not into.exists(), name
    for name in ("file", "dangling", "loop", "fifo", "below a file", "long", "null"):
        before = everything(tmp_path)
        done = call("merge_results.py", tmp_path / "other", "--into", places[name], seconds=30)
        assert done.returncode in (1, 2), (name, done)
        assert len(done.stderr.splitlines()) == 1, (name, done)
        assert everything(tmp_path) == before, name
    refused(call("merge_results.py", ""))
    refused(call("merge_results.py"))


def test_rerun(tmp_path, places):
    before = everything(tmp_path)
    for place in (*places.values(), ""):
        refused(call("rerun.py", place, seconds=30))
        refused(call("rerun.py", place, "--first-epoch", "--device=tpu", seconds=30))
    assert everything(tmp_path) == before


def test_get_data(tmp_path, places):
    before = everything(tmp_path)
    for name, place in places.items():
        refused(call("get_data.py", f"--from={place}", "--to", tmp_path / "data", seconds=30))
        assert everything(tmp_path) == before, name
    refused(call("get_data.py", "--from=", "--to", tmp_path / "data"))
    refused(call("get_data.py", "--dataset=mnist", "--download"))
    refused(call("get_data.py", "--to", tmp_path / "data"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rounds=0"],
        ["--rounds=-1"],
        ["--rounds=1e9"],
        ["--rounds", "9" * 5000],
        ["--at-once=0"],
        ["--at-once", "2", "-1"],
        ["--device=tpu"],
        ["--device=cuda:7"],
        ["--device="],
        ["--models=resnet9"],
        ["--models=nothing"],
        ["--models=resnet" + "1" * 400],
    ],
    ids=lambda arguments: " ".join(arguments)[:20],
)
def test_bench(tmp_path, arguments):
    refused(call("bench.py", *arguments, "--results-dir", tmp_path / "results", folder=tmp_path, seconds=30))
    assert everything(tmp_path) == set()


OVERRIDES = (
    ["loss="],
    ["loss"],
    ["seeds=["],
    ["seeds=[x]"],
    ["seeds=[1.5]"],
    ["optim.lr=1e"],
    ["optim.lr="],
    ["optim=fastest"],
    ["experiment="],
    ["experiment=../up"],
    ["experiment.name="],
    ["experiment.name='\x1b[31m'"],
    ["x" * 5000],
    ["x=" + "y" * 5000],
    ["a\udc80=1"],
    ["logger=everything"],
    ["hydra/sweeper=nothing"],
    ["optim.lr=${oc.env:NOT_THERE}"],
    ["--cfg=nonsense"],
    ["--nonsense"],
    ["--multirun", "loss="],
    ["-m", "optim.lr=range(0)"],
)


@pytest.mark.parametrize(
    "overrides", OVERRIDES, ids=lambda overrides: " ".join(overrides)[:30].encode("unicode_escape").decode()
)
def test_train(tmp_path, overrides):
    flags = [override for override in overrides if override.startswith("-")]
    others = [override for override in overrides if not override.startswith("-")]
    done = call("train.py", *flags, *SMALL, *others, folder=tmp_path, seconds=60)
    refused(done)
    assert everything(tmp_path) == set()


def test_train_into_places_that_are_no_results_folder(tmp_path, places):
    for name in ("file", "dangling", "loop", "fifo", "below a file", "long", "null"):
        before = everything(tmp_path)
        done = call("train.py", *SMALL, f"results_dir={places[name]}", folder=tmp_path, seconds=60)
        assert done.returncode in (1, 2), (name, done)
        assert len(done.stderr.splitlines()) == 1, (name, done)
        assert "unexpected" not in done.stderr, done.stderr
        assert everything(tmp_path) == before, name
