"""Every figure that README and docs give as a result is found in a file under results/."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.commands import call
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# A number with a decimal point, outside of code: 73.88, +0.37, 12.5. Versions (2.13.0) are not numbers.
NUMBER = re.compile(r"(?<![\w./-])[+\u2212-]?\d+\.\d+(?![\w./]*\d)")
CODE = re.compile(r"```.*?```|`[^`\n]*`|<!--.*?-->|\]\([^)]*\)", re.DOTALL)
# Settings, definitions and mathematics: facts that no run measures, with where they come from.
FACTS = {
    "0.1": "the learning rate; docs/protocol.md",
    "0.8": "where the schedule steps; docs/protocol.md",
    "0.9": "momentum, and where the schedule steps; docs/protocol.md",
    "0.5": "gamma of the authors' code; docs/protocol.md",
    "0.05": "slack of the authors' code, and the level of tests",
    "4.1": "a section of the main paper",
    "0.25": "the smallest p of a sign-flip test with 3 pairs, 2 / 2**3; docs/statistics.md",
    "0.0625": "the same with 5 pairs; docs/statistics.md",
    "0.35": "points, the spread that the plan for ResNet-20 rests on; docs/protocol.md",
    "2.0": "Welch's t of the published figures for 5 runs; tests/analysis/test_comparison.py",
    "2.9": "the same for 10 runs",
    "6.1": "gamma of dual focal loss, as its authors give it; docs/rivals.md",
    "3.35": "TB/s of memory of an H100 SXM; NVIDIA's data sheet",
    "1.1": "times binary cross entropy's time, the bound that was set; docs/performance.md",
}


def numbers_of_results() -> set[str]:
    """Every number in the tables under results/, as written and rounded to fewer digits, without a sign.

    Tables, not run folders: in those, somewhere, stands nearly every number of two digits.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "results"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout.split("\0")
    found: set[str] = set()
    for name in filter(None, listed):
        if not name.endswith((".csv", ".md")) or name.startswith("results/runs/"):
            continue
        for text in re.findall(r"\d+\.\d+", (ROOT / name).read_text()):
            found |= {text, *(f"{float(text):.{digits}f}" for digits in (1, 2, 3))}
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_result_has_a_source(page: Path):
    known = numbers_of_results() | FACTS.keys()
    prose = CODE.sub(" ", page.read_text())
    unknown = [text for text in NUMBER.findall(prose) if text.lstrip("+\u2212-") not in known]
    assert not unknown, f"{page.name}: no file under results/ has {', '.join(unknown)}"


def test_the_readme_shows_the_tables_as_they_are():
    checked = call("render_readme.py", "--check")
    assert checked.returncode == 0, checked.stderr
