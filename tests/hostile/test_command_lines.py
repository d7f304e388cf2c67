"""Hostile names and paths on the command lines of the scripts: one line, status 2, nothing written, no hang."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.commands import Done, call
from tests.conftest import ROOT, SMALL

NAMES = ("", "..", "../up", "/etc", "x" * 300, "two\nlines", "\x1b[31mred", "ü", "a\udc80b", "table1*")
SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("[a-z]*.py"))


@pytest.fixture
def places(tmp_path) -> dict[str, str]:
    """Paths that are not what a command takes them for."""
    inside = tmp_path / "places"
    (inside / "folder").mkdir(parents=True)
    (inside / "file").write_text("not a folder\n")
    (inside / "dangling").symlink_to(inside / "gone")
    (inside / "loop").symlink_to(inside / "loop")
    os.mkfifo(inside / "fifo")
    found = {path.name: str(path) for path in inside.iterdir()}
    below = {"below a file": str(inside / "file" / "below"), "long": str(inside / ("x" * 300))}
    return {**found, **below, "null": "/dev/null"}


def refused(done: Done, folder: Path, before: set[Path], status: tuple[int, ...] = (2,)) -> None:
    """One line on stderr, or argparse's usage; nothing new in the folder."""
    assert done.returncode in status, done
    lines = done.stderr.splitlines()
    assert len(lines) == 1 or (lines[0].startswith("usage: ") and ": error: " in lines[-1]), done.stderr
    assert "unexpected" not in done.stderr
    assert lines[-1].isprintable()
    assert set(folder.rglob("*")) == before


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_explains_itself_and_refuses_what_it_does_not_know(tmp_path, script):
    done = call(script, "--help", folder=tmp_path)
    assert done.returncode == 0, done
    assert done.stdout.startswith("usage: ")
    refused(call(script, "--nonsense", folder=tmp_path), tmp_path, set())


def test_names_and_folders_that_are_none(tmp_path, places):
    before = set(tmp_path.rglob("*"))
    for name in NAMES:
        done = call("status.py", f"--experiment={name}", "--results-dir", places["folder"], seconds=30)
        refused(done, tmp_path, before)
    for place in (*places.values(), ""):
        for arguments in (
            ("make_table1.py", "--experiment=table1", f"--results-dir={place}"),
            ("merge_results.py", place, "--into", tmp_path / "into"),
            ("rerun.py", place),
            ("get_data.py", f"--from={place}", "--to", tmp_path / "data"),
        ):
            refused(call(*arguments, seconds=30), tmp_path, before)


def test_results_cannot_go_where_no_folder_can_be(tmp_path, places):
    before = set(tmp_path.rglob("*"))
    for name in ("file", "dangling", "loop", "fifo", "below a file", "long", "null"):
        done = call("train.py", *SMALL, f"results_dir={places[name]}", folder=tmp_path, seconds=60)
        refused(done, tmp_path, before, status=(1, 2))
