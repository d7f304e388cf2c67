"""The layers of docs/architecture.md: `make lint` passes as they stand, and fails where an import goes up."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytest.importorskip("importlinter")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the import contracts of the checkout in `folder`, as `make lint` does."""
    check = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command()"
    environment = {"PYTHONPATH": str(folder), "PATH": ""}
    return subprocess.run(
        [sys.executable, "-c", check], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("anchorloss", "models", "hydra_plugins", "scripts"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "train.py"):
        shutil.copy(ROOT / name, folder)
    return folder


def test_no_import_goes_up(checkout):
    done = lint(checkout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("anchorloss/runs/files.py", "from anchorloss.sweep import plan"),
        ("anchorloss/data/dataset.py", "def later():\n    from anchorloss.training import run"),
        ("anchorloss/errors.py", "import train"),
        ("anchorloss/report/svg.py", "import anchorloss.tracking"),
        ("anchorloss/report/stats.py", "import anchorloss.report.table"),
        ("anchorloss/loss.py", "import anchorloss.errors"),
    ],
)
def test_an_import_that_goes_up_is_found(checkout, path, line):
    file = checkout / path
    content = file.read_text()
    file.write_text(f"{content}\n{line}\n")
    try:
        done = lint(checkout)
    finally:
        file.write_text(content)
    assert done.returncode == 1
    assert "BROKEN" in done.stdout


def test_the_package_stays_small_enough_to_survey():
    entries = [path for path in (ROOT / "anchorloss").iterdir() if path.name != "__pycache__"]
    assert sum(path.is_file() for path in entries) <= 8
    assert sum(path.is_dir() for path in entries) <= 12
