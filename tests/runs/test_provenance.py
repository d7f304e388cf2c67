"""Which code counts as the commit's."""

from __future__ import annotations

import subprocess

import pytest

from anchorloss.runs import provenance


@pytest.fixture
def repository(tmp_path):
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "own.py").write_text("x = 1\n")
    (tmp_path / ".gitignore").write_text("ignored.py\n")
    git("add", "own.py", ".gitignore")
    git("commit", "-m", "first")
    return tmp_path


def test_a_file_is_clean_only_as_it_was_committed(repository, tmp_path_factory):
    def dirty(path) -> bool:
        provenance.commit.cache_clear()
        clean = not provenance.commit()[1]
        return provenance.commit(path)[1] if clean else not provenance._is_committed(path)

    assert not dirty(repository / "own.py")
    for name in ("untracked.py", "ignored.py"):
        (repository / name).write_text("x = 1\n")
        assert dirty(repository / name)
    (repository / "own.py").write_text("x = 2\n")
    assert dirty(repository / "own.py")
    outside = tmp_path_factory.mktemp("outside") / "own.py"
    outside.write_text("x = 1\n")
    assert dirty(outside)
