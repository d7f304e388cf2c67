"""Which code counts as the commit's, and which checkout as this one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from anchorloss.runs import provenance


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def commit_all(folder: Path) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-m", "another")
    forget()


def forget() -> None:
    """Git is asked once a process."""
    provenance.commit.cache_clear()
    provenance._head.cache_clear()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A small checkout of this project, asked instead of the one that runs the tests."""
    root = tmp_path / "checkout"
    for name in ("train.py", "anchorloss/loss.py", "configs/config.yaml", "results/x/table1.md", "README.md"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("first\n")
    git(tmp_path, "init", str(root))
    monkeypatch.setattr(provenance, "ROOT", root)
    commit_all(root)
    yield root
    forget()


def test_code_and_configs_make_it_dirty_and_tables_do_not(checkout):
    head, dirty = provenance.commit()
    assert (len(head), dirty) == (40, False)
    for name, expected in (
        ("results/x/table1.md", False),
        ("README.md", False),
        ("configs/mine.yaml", False),
        ("results/new.md", False),
        ("configs/config.yaml", True),
        ("anchorloss/loss.py", True),
        ("anchorloss/new.py", True),
        ("train.py", True),
    ):
        (checkout / name).write_text("changed\n")
        forget()
        assert provenance.commit() == (head, expected), name
        git(checkout, "stash", "-u")


def test_another_repository_around_the_tree_is_not_its_own(checkout, monkeypatch):
    git(checkout.parent, "init")
    (checkout.parent / "file").touch()
    (checkout.parent / ".gitignore").write_text("checkout\n")
    commit_all(checkout.parent)
    head = provenance.commit()[0]
    monkeypatch.setenv("GIT_DIR", str(checkout.parent / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(checkout.parent))
    forget()
    assert provenance.commit() == (head, False)
    (checkout / ".git").rename(checkout / "moved")
    forget()
    assert provenance.commit() == ("unknown", True)


def test_a_checkout_of_another_user_is_said_with_gits_remedy(checkout, capsys):
    if os.geteuid() != 0:
        pytest.skip("needs root, to give the checkout to another user")
    os.chown(checkout, 12345, 12345)
    os.chown(checkout / ".git", 12345, 12345)
    forget()
    assert provenance.commit() == ("unknown", True)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"git config --global --add safe.directory {checkout}" in line


def test_a_file_of_ones_own_is_clean_only_as_it_was_committed(checkout, tmp_path):
    (checkout / ".gitignore").write_text("ignored.py\n")
    (checkout / "docs").mkdir()
    (checkout / "docs" / "own.py").write_text("x = 1\n")
    commit_all(checkout)
    assert not provenance.commit(checkout / "docs" / "own.py")[1]
    assert provenance.is_tracked(checkout / "docs" / "own.py")
    for path in (checkout / "ignored.py", checkout / "docs" / "new.py", tmp_path / "outside.py"):
        path.write_text("x = 1\n")
        assert provenance.commit(path)[1]
        assert not provenance.is_tracked(path)
    (checkout / "docs" / "own.py").write_text("x = 2\n")
    forget()
    assert provenance.commit(checkout / "docs" / "own.py")[1]


def test_commits_since_which_training_code_has_changed_are_named(checkout):
    first = provenance.commit()[0]
    (checkout / "README.md").write_text("changed\n")
    commit_all(checkout)
    assert provenance.made_with_other_code([first, "0" * 40, "unknown"]) == []
    (checkout / "anchorloss" / "loss.py").write_text("changed\n")
    assert provenance.made_with_other_code([first]) == [first]
    commit_all(checkout)
    assert provenance.made_with_other_code([first, provenance.commit()[0]]) == [first]
