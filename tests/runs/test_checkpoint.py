"""Checkpoints: whole, verified, safe to load; whatever has happened to the files."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anchorloss.errors import RunError, UserError
from anchorloss.runs import checkpoint
from tests.small_disk import small_disk

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


@pytest.mark.parametrize("name", [checkpoint.NEWEST, checkpoint.PREVIOUS])
def test_a_checkpoint_that_cannot_be_read_is_refused_and_kept(folder, name):
    """It may be whole: a start from the one before it, or from zero, would overwrite it."""
    if name == checkpoint.PREVIOUS:
        (folder / checkpoint.NEWEST).write_bytes(b"damaged")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(UserError, match=rf"{name}: not a regular file"):
        checkpoint.load(folder, HASH)


def test_a_checkpoint_of_another_format_is_refused_and_kept(folder):
    content = (folder / checkpoint.NEWEST).read_bytes().replace(b'"format": 1', b'"format": 2')
    (folder / checkpoint.NEWEST).write_bytes(content)
    with pytest.raises(UserError, match=r"has format 2, .*finish the run with the version that began it"):
        checkpoint.load(folder, HASH)
    assert (folder / checkpoint.NEWEST).read_bytes() == content


def test_a_checkpoint_of_another_run_is_refused(folder):
    with pytest.raises(UserError, match="is of another run"):
        checkpoint.load(folder, "9876543210")
    assert (folder / checkpoint.NEWEST).exists()


def with_header(body: bytes) -> bytes:
    """A checkpoint with a right checksum, whose maker knows the format."""
    digest = hashlib.sha256(HASH.encode() + b"\n" + body).hexdigest()
    return json.dumps({"format": 1, "hash": HASH, "sha256": digest}).encode() + b"\n" + body


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
    (folder / checkpoint.NEWEST).write_bytes(with_header(archive.getvalue()))
    assert checkpoint.load(folder, HASH)["epoch"] == 1
    assert not trap.exists()
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_compressed_archive_is_not_unpacked(folder):
    """It could be of any size."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1000))
    (folder / checkpoint.NEWEST).write_bytes(with_header(packed.getvalue()))
    assert checkpoint.load(folder, HASH)["epoch"] == 1


def test_a_save_that_was_cut_short_leaves_a_whole_checkpoint(folder):
    """Killed between its two renames."""
    (folder / checkpoint.NEWEST).rename(folder / checkpoint.PREVIOUS)
    assert checkpoint.load(folder, HASH)["epoch"] == 2


def test_no_space_for_a_checkpoint_leaves_both_earlier_ones(tmp_path):
    with small_disk(tmp_path / "disk", kibibytes=64) as disk:
        checkpoint.save(disk, HASH, FIRST)
        checkpoint.save(disk, HASH, SECOND)
        with pytest.raises(RunError, match="No space left"):
            checkpoint.save(disk, HASH, {"epoch": 3, "weights": torch.zeros(20_000)})
        assert checkpoint.load(disk, HASH)["epoch"] == 2
        (disk / checkpoint.NEWEST).unlink()
        assert checkpoint.load(disk, HASH)["epoch"] == 1
