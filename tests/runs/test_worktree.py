"""Scripts and `train.py` use the package that stands beside them, not the one that is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize("safe_path", ["", "1"])
@pytest.mark.parametrize("script", ["train.py", "scripts/status.py"])
def test_an_entry_point_uses_the_package_beside_it(tmp_path: Path, script: str, safe_path: str) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "anchorloss").mkdir()
    for name in ("train.py", "scripts/_common.py", "scripts/status.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "anchorloss" / "__init__.py").touch()
    (tmp_path / "anchorloss" / "errors.py").write_text("raise SystemExit('the one beside it')")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": safe_path}
    done = subprocess.run(
        [sys.executable, tmp_path / script, "--help"], env=environment, capture_output=True, text=True
    )
    assert done.stderr == "the one beside it\n"
