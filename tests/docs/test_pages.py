"""The documents do what they say: every command and every piece of code in them runs."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from anchorloss.sweep import plan
from tests import processes
from tests.checkout import copy_tracked
from tests.conftest import ROOT
from tests.in_process import composed

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- (?P<note>[^>]*) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL)


@dataclass
class Block:
    """A fenced block, and what the comment before it says of it."""

    page: Path
    note: str
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    found = BLOCK.finditer(page.read_text())
    return [Block(page, block["note"] or "", block["language"], block["text"]) for block in found]


def commands(page: Path, *, run: bool = True) -> list[list[str]]:
    """The words of each command of a page, of those that are run here or of those that are not."""
    found = [b for b in blocks(page) if b.language == "sh" and ("not run" in b.note) is not run]
    lines = [line for block in found for line in block.text.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := shlex.split(line.partition("&&")[0], comments=True))]


def python_of(page: Path) -> str:
    """The code of a page, files aside, one block after another."""
    return "\n".join(block.text for block in blocks(page) if block.language == "python" and not block.note)


@pytest.fixture
def copy(tmp_path):
    """A copy of what git tracks, to run commands in."""
    return copy_tracked(tmp_path)


def run(folder: Path, *arguments: str) -> None:
    """Run this Python with the arguments, in the copy."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "WANDB_MODE": "disabled"}
    done = processes.run(["python", *arguments], cwd=folder, env=environment)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", [page for page in PAGES if python_of(page)], ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page, tmp_path):
    (tmp_path / "results").symlink_to(ROOT / "results")
    run(tmp_path, "-c", python_of(page))


@pytest.mark.timeout(900)  # several trainings; each command has its own limit
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_the_commands_of_a_page_run(page, copy):
    for block in blocks(page):
        if block.note.startswith("file: "):
            (copy / block.note.removeprefix("file: ")).write_text(block.text)
    for python, *arguments in commands(page):
        assert python == "python", arguments
        run(copy, *arguments)
    if page.name == "extending.md":
        assert "hinge" in (copy / "results" / "hinge" / "table1.md").read_text()
        assert list(copy.glob("results/runs/plain/anchor_bg-plain-seed0-*/record.json"))
        table, report = (
            (copy / "results" / "bars" / name).read_text() for name in ("table1.md", "report.html")
        )
        assert "bars, resnet8, 2 epochs, 2,000 training images" in table
        assert "+0.37" not in table + report, "the paper's figures are CIFAR-100's"
        assert "falling" in report
        assert "class 0" not in report


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def trainings_not_run(page: Path) -> list[list[str]]:
    """The arguments of each `python train.py` of a page that is too long to run here."""
    return [words[2:] for words in commands(page, run=False) if words[:2] == ["python", "train.py"]]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if trainings_not_run(page)], ids=lambda page: page.name
)
def test_a_training_that_is_not_run_is_one_that_would(page):
    """It composes and is checked as a sweep's plan is, with the first choice of what it sweeps over."""
    for arguments in trainings_not_run(page):
        words = [word for word in arguments if not word.startswith(("-", "hydra"))]
        overrides = OverridesParser.create().parse_overrides(words)
        chosen = [
            f"{override.get_key_element()}={next(override.sweep_string_iterator())}"
            if override.is_sweep_override()
            else override.input_line
            for override in overrides
        ]
        runs, _ = plan.plan([composed(*chosen)])
        assert runs, arguments
