"""Checkpoints: whole, verified, safe to load; whatever has happened to the files."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anchorloss.errors import UserError
from anchorloss.runs import checkpoint

HASH = "0123456789"
FIRST = {"epoch": 1, "weights": torch.arange(5.0)}
SECOND = {"epoch": 2, "weights": torch.arange(5.0) * 2}


@pytest.fixture
def folder(tmp_path):
    """A folder with two checkpoints of the run."""
    checkpoint.save(tmp_path, HASH, FIRST)
    checkpoint.save(tmp_path, HASH, SECOND)
    return tmp_path


def test_the_newest_is_loaded_and_the_one_before_is_kept(folder):
    assert checkpoint.load(folder, HASH)["epoch"] == 2
    assert torch.equal(checkpoint.load(folder, HASH)["weights"], SECOND["weights"])
    assert (folder / checkpoint.PREVIOUS).exists()


def test_without_a_checkpoint_there_is_none(tmp_path):
    assert checkpoint.load(tmp_path, HASH) is None


def damage(content: bytes, kind: str, place: float) -> bytes:
    """`content` truncated, or with one bit flipped, at a fraction of its length; or emptied, or replaced."""
    position = min(int(place * len(content)), len(content) - 1)
    if kind == "truncated":
        return content[:position]
    if kind == "bit flipped":
        return content[:position] + bytes([content[position] ^ 16]) + content[position + 1 :]
    return b"" if kind == "emptied" else b"PK\x03\x04 something else"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(kind=st.sampled_from(["truncated", "bit flipped", "emptied", "foreign"]), place=st.floats(0, 0.999))
def test_a_damaged_newest_falls_back_to_the_previous_with_one_line(folder, capsys, kind, place):
    path = folder / checkpoint.NEWEST
    whole = path.read_bytes()
    try:
        path.write_bytes(damage(whole, kind, place))
        capsys.readouterr()
        assert checkpoint.load(folder, HASH)["epoch"] == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert str(path) in line
    finally:
        path.write_bytes(whole)


def test_both_damaged_starts_anew(folder, capsys):
    for name in (checkpoint.NEWEST, checkpoint.PREVIOUS):
        (folder / name).write_bytes(b"\0" * 100)
    assert checkpoint.load(folder, HASH) is None
    assert len(capsys.readouterr().err.splitlines()) == 2


def put_in_place(path: Path, kind: str) -> None:
    """Something at `path` that cannot be read as a file."""
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        # Reading a process's memory at address 0 is an I/O error.
        path.symlink_to({"lost link": "nowhere", "device": "/dev/zero", "I/O error": "/proc/self/mem"}[kind])


@pytest.mark.parametrize("kind", ["folder", "pipe", "lost link", "device", "I/O error"])
@pytest.mark.parametrize("name", [checkpoint.NEWEST, checkpoint.PREVIOUS])
def test_a_checkpoint_that_cannot_be_read_is_refused_and_kept(folder, name, kind):
    """It may be whole: a start from the one before it, or from zero, would overwrite it."""
    if name == checkpoint.PREVIOUS:
        (folder / checkpoint.NEWEST).write_bytes(b"damaged")
    put_in_place(folder / name, kind)
    before = sorted((path.name, path.lstat().st_ino) for path in folder.iterdir())
    with pytest.raises(UserError, match=rf"{name}: "):
        checkpoint.load(folder, HASH)
    assert sorted((path.name, path.lstat().st_ino) for path in folder.iterdir()) == before


def test_a_checkpoint_of_another_run_is_refused(folder):
    with pytest.raises(UserError, match="is of another run"):
        checkpoint.load(folder, "9876543210")
    assert (folder / checkpoint.NEWEST).exists()


class Hostile:
    """Unpickled, it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("save", [torch.save, lambda value, file: file.write(pickle.dumps(value))])
def test_a_hostile_pickle_is_not_executed(folder, tmp_path, capsys, save):
    trap = tmp_path / "executed"
    archive = io.BytesIO()
    save({"epoch": Hostile(trap)}, archive)
    body = archive.getvalue()
    # Its maker knows the format, so the checksum is right.
    digest = hashlib.sha256(HASH.encode() + b"\n" + body).hexdigest()
    header = {"format": checkpoint.FORMAT, "hash": HASH, "sha256": digest}
    (folder / checkpoint.NEWEST).write_bytes(json.dumps(header).encode() + b"\n" + body)
    assert checkpoint.load(folder, HASH)["epoch"] == 1
    assert not trap.exists()
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_save_that_was_cut_short_leaves_a_whole_checkpoint(folder):
    """Killed between its two renames, a save leaves the previous checkpoint and the candidate."""
    (folder / checkpoint.NEWEST).rename(folder / checkpoint.PREVIOUS)
    assert checkpoint.load(folder, HASH)["epoch"] == 2


def test_a_run_that_has_ended_keeps_no_checkpoint(folder):
    """Nor what a save left that was killed before its first rename."""
    (folder / "checkpoint.new.pt").write_bytes((folder / checkpoint.NEWEST).read_bytes())
    checkpoint.remove(folder)
    assert list(folder.iterdir()) == []
