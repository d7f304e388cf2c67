"""What a command meets around it: terminals, pipes, full disks, missing folders, memory."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from anchorloss import errors
from anchorloss.errors import RunError, UserError, one_line_errors
from tests.conftest import ROOT

NO_MEMORY = "[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried"


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (UserError("a=1:\n  no; use 2"), 2, "error: a=1: no; use 2\n"),
        (RunError("disk full"), 1, "disk full"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 1, "out of memory"),
        (RuntimeError(NO_MEMORY), 1, "out of memory"),
        (OSError(12, "Cannot allocate memory"), 1, "out of memory"),
        (RecursionError("maximum recursion depth exceeded"), 2, "nested too deeply"),
        (PermissionError(13, "Permission denied", "results/x"), 2, "results/x: Permission denied; choose"),
        (IsADirectoryError(21, "Is a directory", b"\xff"), 2, "Is a directory; name a file"),
        (OSError(28, "No space left on device", "results/x"), 1, "results/x: No space left"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), 2, "not UTF-8"),
        (KeyError("a key"), 1, "unexpected KeyError: 'a key' (test_surroundings.py:"),
        (UserError("x" * 100_000 + "; the remedy"), 2, "the remedy"),
        (UserError("\x1b[31mred\x07 \u202eright to left"), 2, "?[31mred? ?right to left"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_exception_is_one_line(error, status, words, capsys):
    with pytest.raises(SystemExit) as end, one_line_errors():
        raise error
    text = capsys.readouterr().err
    assert end.value.code == status
    assert words in text
    assert text.count("\n") == 1
    assert len(text) < 1300


def test_a_missing_package_is_in_the_environment_of_the_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "anchorloss" / "errors.py"))
    missing = ModuleNotFoundError("No module named 'pandas'", name="pandas.core")
    assert errors.explain(missing) == (2, f"pandas is not installed; {errors.INSTALL}")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    assert errors.explain(missing)[1].endswith("source .venv/bin/activate")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    assert errors.explain(missing)[1].endswith(errors.INSTALL)


MERGE = '"$python" "$root/scripts/merge_results.py" "$root/results/runs/smoke" --into copy'


@pytest.mark.parametrize(
    ("line", "status", "stderr"),
    [
        (f"{MERGE} | true", 0, ""),
        (f"{MERGE} > /dev/full", 1, "error: standard output: No space left on device\n"),
        (f"{MERGE} >&-", 0, ""),
        (f"{MERGE}/no/nothing <&- >&- 2>&-", 0, ""),
        (
            f"mkdir gone && cd gone && rmdir ../gone && {MERGE} 2>&1 | grep -c '^error: the current folder: '",
            2,
            "",
        ),
    ],
)
def test_output_that_nobody_takes_and_a_folder_that_is_gone(tmp_path, line, status, stderr):
    names = {"PYTHONPATH": str(ROOT), "python": sys.executable, "root": str(ROOT)}
    shell = ["bash", "-o", "pipefail", "-c", line]
    done = subprocess.run(
        shell, cwd=tmp_path, env=os.environ | names, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (status, stderr)
