"""What a command meets around it: terminals, pipes, full disks, missing folders, permissions, memory, Ctrl-C."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from anchorloss.errors import RunError, UserError, one_line_errors
from anchorloss.terminal import plain_text
from tests import processes
from tests.commands import call
from tests.conftest import ROOT, SMALL, command
from tests.run_folders import edit_record, finish_run, make_settings

SCRIPTS = ("make_table1.py", "status.py")


def ends(error: BaseException, capsys) -> tuple[int, str]:
    """Status and stderr of a command in which `error` is raised."""
    with pytest.raises(SystemExit) as end, one_line_errors():
        raise error
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (UserError("a=1:\n  no; use 2"), 2, "error: a=1: no; use 2\n"),
        (RunError("disk full"), 1, "disk full"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 1, "out of memory"),
        (
            RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried"),
            1,
            "out of memory",
        ),
        (OSError(12, "Cannot allocate memory"), 1, "out of memory"),
        (RecursionError("maximum recursion depth exceeded"), 2, "nested too deeply"),
        (PermissionError(13, "Permission denied", "results/x"), 2, "results/x: Permission denied; choose"),
        (IsADirectoryError(21, "Is a directory", b"\xff"), 2, "Is a directory; name a file"),
        (OSError(28, "No space left on device", "results/x"), 1, "results/x: No space left"),
        (OSError(5, "Input/output error"), 1, "Input/output error"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), 2, "not UTF-8"),
        (ModuleNotFoundError("No module named 'pandas'", name="pandas.core"), 2, "pandas is not installed"),
        (KeyError("a key"), 1, "unexpected KeyError: 'a key' (test_surroundings.py:"),
        (UserError("x" * 100_000 + "; the remedy"), 2, "the remedy"),
        (UserError("\x1b[31mred\x07 \u202eright to left"), 2, "?[31mred? ?right to left"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_exception_is_one_line(error, status, words, capsys):
    code, text = ends(error, capsys)
    assert code == status
    assert words in text
    assert text.count("\n") == 1
    assert len(text) < 1300


@pytest.fixture
def results(tmp_path) -> Path:
    for seed in (0, 1):
        finish_run(tmp_path / "results", make_settings("bce", seed))
        finish_run(tmp_path / "results", make_settings("anchor_bg", seed))
    return tmp_path / "results"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_terminal_of_any_encoding(results, script, encoding):
    done = call(script, "--experiment=table1", "--results-dir", results, encoding=encoding)
    assert done.returncode == 0, done
    assert done.stderr == ""
    assert "BCE" in done.stdout or "bce" in done.stdout
    if encoding in ("utf-8", "cp1252"):  # in others a dash becomes an escape
        assert max(len(line) for line in done.stdout.splitlines() if "written: " not in line) <= 80


def test_a_mistake_on_an_ascii_terminal(tmp_path):
    done = call("status.py", "--experiment=ü", "--results-dir", tmp_path / "Größe", encoding="ascii")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_a_record_cannot_send_control_characters_to_the_terminal(results):
    for folder in (results / "runs" / "table1").iterdir():
        edit_record(folder, provenance={"device": "GPU\x1b]0;owned\x07\x9b31m\n| injected | 1 |\r\u202e"})
    for script in SCRIPTS:
        done = call(script, "--experiment=table1", "--results-dir", results)
        for character in "\x1b\x07\x9b\r\u202e":
            assert character not in done.stdout + done.stderr, script
        assert not [line for line in done.stdout.splitlines() if line.startswith("| injected")], script


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A line of bash with `$status`, `$train` and the tests' Python."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "python": sys.executable, "root": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


# A script that imports little, since each line starts a process.
MERGE = '"$python" "$root/scripts/merge_results.py"'


@pytest.mark.parametrize(
    ("line", "status", "stderr"),
    [
        (f"{MERGE} results --into copy | true", 0, ""),
        (f"{MERGE} results --into copy | head -1", 0, ""),
        (f"{MERGE} results --into copy > /dev/full", 1, "error: standard output: No space left on device\n"),
        (f"{MERGE} results --into copy >&-", 0, ""),
        (f"{MERGE} nothing --into copy 2>&-", 2, ""),
        (f"{MERGE} nothing --into copy 2>/dev/full", 2, ""),
        (f"{MERGE} nothing --into copy <&- >&- 2>&-", 2, ""),
    ],
)
def test_output_that_nobody_takes(results, line, status, stderr):
    done = shell(line, results.parent)
    assert (done.returncode, done.stderr) == (status, stderr)


def test_a_run_outlives_the_readers_of_its_output(tmp_path):
    line = " ".join(command(*SMALL, "optim.epochs=1", "results_dir=results"))
    done = shell(f"{line} > /dev/full 2> >(true)", tmp_path)
    assert done.returncode in (0, 1)
    assert len(list(tmp_path.glob("results/runs/scratch/*/record.json"))) == 1


def test_a_deleted_working_directory(tmp_path):
    (tmp_path / "gone").mkdir()
    for script in ("status.py", "make_table1.py"):
        line = f'cd gone && rmdir ../gone && "$python" "$root/scripts/{script}"; status=$?; mkdir ../gone; exit $status'
        done = shell(line, tmp_path)
        assert done.returncode == 2, done
        assert done.stderr.splitlines()[-1].startswith("error: the current folder: ")
        (tmp_path / "gone").mkdir(exist_ok=True)


@contextmanager
def nobody():
    """Lose root's right to read and write everything."""
    if os.geteuid() == 0:
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
    else:
        yield


@pytest.mark.parametrize("part", ["results", "runs", "table1", "run", "record.json"])
def test_results_that_cannot_be_read(results, part, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    run = sorted((results / "runs" / "table1").iterdir())[0]
    path = {"results": results, "runs": results / "runs", "table1": run.parent, "run": run}.get(
        part, run / part
    )
    call("status.py", "--results-dir", results)  # imports what it needs while it may
    for parent in results.parents:
        if parent.stat().st_uid == os.getuid() and str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    path.chmod(0)
    try:
        with nobody():
            done = call("status.py", "--experiment=table1", "--results-dir", results)
    finally:
        path.chmod(0o755)
    assert done.returncode == 2, done
    assert done.stderr.count("\n") == 1
    assert "ermission denied" in done.stderr
    assert "unexpected" not in done.stderr


@pytest.mark.parametrize("script", ["make_table1.py"])
def test_results_that_cannot_be_written(results, script):
    call(script, "--experiment=table1", "--results-dir", results)
    written = results / "table1"
    before = {path.name: path.read_bytes() for path in written.iterdir()}
    for parent in results.parents:
        if parent.stat().st_uid == os.getuid() and str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    with nobody():
        done = call(script, "--experiment=table1", "--results-dir", results)
    assert done.returncode in (1, 2), done
    assert done.stderr.count("\n") == 1
    assert "ermission denied" in done.stderr
    assert {path.name: path.read_bytes() for path in written.iterdir()} == before


LITTLE_MEMORY = """
import resource, runpy, sys
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20),) * 2)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_too_little_memory_is_called_so(tmp_path):
    _, script, *arguments = command(*SMALL, "data.training_images=20000", "results_dir=results")
    done = processes.run(["python", "-c", LITTLE_MEMORY, script, *arguments], cwd=tmp_path)
    assert done.returncode == 1, done
    assert "out of memory" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_tables_as_plain_text_are_split_where_they_are_too_wide():
    wide = "| loss | " + " | ".join(f"column {i}" for i in range(20)) + " |\n|" + ":--|" * 1 + "--:|" * 20
    wide += "\n| bce | " + " | ".join(f"{i}.00 ± 0.01" for i in range(20)) + " |"
    text = plain_text(f"# Title\n\n{wide}\n\nAfter **it**.", 80)
    lines = text.splitlines()
    assert lines[0] == "Title"
    assert lines[-1] == "After it."
    assert max(map(len, lines)) <= 80
    for i in range(20):
        assert f"{i}.00 ± 0.01" in text
    assert sum(line.startswith("bce") for line in lines) > 1
