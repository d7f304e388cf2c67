from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from anchorloss.errors import RunError, UserError
from anchorloss.runs import files
from anchorloss.runs.files import read_file, sha256, write_atomically, write_once
from anchorloss.runs.folder import remove_leftovers
from tests.commands import time_limit
from tests.small_disk import small_disk


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", kibibytes=64) as folder:
        yield folder


def test_write_atomically_replaces_the_content_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"new and longer")
    assert path.read_bytes() == b"new and longer"
    assert names(tmp_path) == ["file"]


def test_files_have_the_permissions_of_ordinary_files(tmp_path: Path) -> None:
    (tmp_path / "ordinary").write_bytes(b"")
    write_atomically(tmp_path / "atomic", b"")
    write_once(tmp_path / "once", b"")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ordinary", "atomic", "once")}
    assert len(modes) == 1


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = [bytes([letter]) * 200_000 for letter in b"ab"]
    write_atomically(path, contents[0])
    done = threading.Event()

    def write() -> None:
        for turn in range(60):
            write_atomically(path, contents[turn % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add(path.read_bytes())
    writer.join()
    assert seen <= set(contents)


@pytest.mark.parametrize("links", [True, False])
def test_write_once_never_overwrites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    """Nor on a file system without hard links."""

    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(files.os, "link", no_links)
    path = tmp_path / "record.json"
    write_once(path, b"first")
    with pytest.raises(FileExistsError):
        write_once(path, b"second")
    assert path.read_bytes() == b"first"
    assert names(tmp_path) == ["record.json"]


def test_of_many_writers_one_wins(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    start = threading.Barrier(8)
    winners = []

    def write(number: int) -> None:
        start.wait()
        try:
            write_once(path, str(number).encode() * 1000)
            winners.append(number)
        except FileExistsError:
            pass

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(winners) == 1
    assert path.read_bytes() == str(winners[0]).encode() * 1000
    assert names(tmp_path) == ["record.json"]


@pytest.mark.parametrize("write", [write_atomically, write_once])
def test_a_full_disk_is_one_line_and_leaves_no_part(disk: Path, write) -> None:
    path = disk / "checkpoint.pt"
    with pytest.raises(RunError) as caught:
        write(path, bytes(100_000))
    assert str(caught.value) == (
        f"{path}: cannot write 100,000 bytes: No space left on device; free some space and start again"
    )
    assert names(disk) == []


def test_a_full_disk_leaves_the_old_content(disk: Path) -> None:
    path = disk / "checkpoint.pt"
    write_atomically(path, b"old" * 5000)
    with pytest.raises(RunError):
        write_atomically(path, bytes(60_000))
    assert path.read_bytes() == b"old" * 5000
    assert names(disk) == ["checkpoint.pt"]


@pytest.mark.parametrize("write", [write_atomically, write_once])
def test_a_path_that_cannot_be_written_is_one_line(tmp_path: Path, write) -> None:
    (tmp_path / "file").touch()
    for path, reason in (("absent/file", "No such file or directory; "), ("file/x", "Not a directory; ")):
        with pytest.raises(UserError, match=rf"{path}: cannot write 4 bytes: {reason}"):
            write(tmp_path / path, b"data")


def test_what_a_killed_writer_leaves_is_removed_and_nothing_else(tmp_path: Path) -> None:
    """Nor what a process that plans a sweep late writes at the same time, the run's config."""
    code = (
        "import os, pathlib, sys; from anchorloss.runs import files;"
        "files.os.fsync = lambda _: os.kill(os.getpid(), 9);"
        "files.write_atomically(pathlib.Path(sys.argv[1]), b'x' * 1000)"
    )
    path = tmp_path / "history.csv"
    write_atomically(path, b"old")
    (tmp_path / ".config.yaml.0123456789ab.writing").touch()
    killed = subprocess.run([sys.executable, "-c", code, str(path)])
    assert killed.returncode == -9
    assert len(names(tmp_path)) == 3
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".config.yaml.0123456789ab.writing", "history.csv"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "lost link", "loop", "large", "endless"])
def test_what_is_no_regular_file_of_a_sane_size_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "large":
        with path.open("wb") as file:
            file.truncate(3 << 30)
    else:
        # Reading a process's memory at address 0 is an I/O error.
        links = {"device": "/dev/zero", "lost link": "nowhere", "loop": path, "endless": "/proc/self/mem"}
        path.symlink_to(links[kind])
    with time_limit(20), pytest.raises(UserError, match=f"{path}: "):
        read_file(path)


def test_a_file_is_read_up_to_the_largest_size_and_a_missing_one_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_file(tmp_path / "file", 5) == b"12345"
    with pytest.raises(UserError, match="larger than 4 bytes"):
        read_file(tmp_path / "file", 4)
    assert read_file(tmp_path / "absent") is None
    assert read_file(tmp_path / "file" / "below") is None


def test_sha256_is_written_as_in_records() -> None:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sha256(b"") == f"sha256:{empty}"
