"""What `pip install .` brings: one typed package that needs torch alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import pytest

from tests.checkout import copy_tracked
from tests.conftest import ROOT
from tests.run_folders import finish_run, make_settings

USER = """\
import torch
from anchorloss import AnchorLoss, __version__, anchor_loss
criterion = AnchorLoss(gamma=0.5, anchor="background")
loss: torch.Tensor = criterion(torch.randn(2, 3), torch.tensor([0, 1]))
print(__version__, float(loss - anchor_loss(torch.zeros(2, 3), torch.tensor([0, 1]))))
"""


def requirements(name: str, found: dict[str, metadata.Distribution]) -> dict[str, metadata.Distribution]:
    """The distribution `name` and those it requires, extras aside, as far as they are installed."""
    with suppress(metadata.PackageNotFoundError):  # one that is required on another platform
        if name not in found:
            found[name] = metadata.distribution(name)
            for line in found[name].requires or ():
                if "extra ==" not in line:
                    requirements(re.match(r"[\w.-]+", line)[0], found)
    return found


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """The Python of an environment with torch and what torch requires, in which the package is installed."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for distribution in requirements("torch", {}).values():
        for top in {Path(file).parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(distribution.locate_file(top))))
    before = set(site.iterdir())
    python = folder / "bin" / "python"
    source = copy_tracked(tmp_path_factory.mktemp("source"))
    pip_install(python, "--no-deps", "--no-build-isolation", source)
    brought = {path.name for path in set(site.iterdir()) - before} - {"__pycache__"}
    assert {name for name in brought if not name.endswith(".dist-info")} == {"anchorloss"}
    return python


def pip_install(python: Path, *what: object) -> None:
    done = run(Path(sys.executable), "-m", "pip", "--python", python, "install", "-q", "--no-index", *what)
    assert done.returncode == 0, done.stderr


def run(python: Path, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run it without PYTHONPATH: a checkout there would count as installed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [str(python), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_the_installed_loss_runs_beside_torch_alone(environment, tmp_path):
    (tmp_path / "user.py").write_text(USER)
    done = run(environment, "user.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    listed = run(environment, "-c", "import anchorloss, sys; print('torch' in sys.modules)", cwd=tmp_path)
    assert listed.stdout == "False\n"


def test_every_installed_module_imports_and_every_name_is_shown(environment, tmp_path):
    code = (
        "import pkgutil, importlib, anchorloss as a\n"
        "print(sorted(name for name in dir(a) if name.lower().startswith('anchor')))\n"
        "for module in pkgutil.walk_packages(a.__path__): importlib.import_module(f'anchorloss.{module.name}')\n"
        "print(hasattr(a, 'loss'), hasattr(a, 'nothing'))\n"
    )
    done = run(environment, "-c", code, cwd=tmp_path)
    assert done.stdout == "['AnchorLoss', 'anchor_loss']\nTrue False\n", done.stderr


@pytest.mark.slow
def test_a_users_file_is_checked_strictly(environment, tmp_path):
    (tmp_path / "user.py").write_text(USER)
    strict = ["-m", "mypy", "--strict", "--python-executable", str(environment)]
    shutil.copy(ROOT / "anchorloss" / "loss.py", tmp_path / "copied_loss.py")
    done = run(Path(sys.executable), *strict, "user.py", "copied_loss.py", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    wrong = {'"background"': '"backgruond"', "gamma=0.5": "gamma='half'", "AnchorLoss,": "nothing,"}
    for old, new in wrong.items():
        (tmp_path / "wrong.py").write_text(USER.replace(old, new, 1))
        done = run(Path(sys.executable), *strict, "wrong.py", cwd=tmp_path)
        assert done.returncode == 1, (old, new, done.stdout)


def test_without_the_experiments_a_command_says_what_to_install(environment, tmp_path):
    checkout = copy_tracked(tmp_path / "checkout")
    finish_run(checkout / "results", make_settings("bce", 0))
    for command in ("train.py", "scripts/make_table1.py", "scripts/report.py"):
        done = run(environment, command, cwd=checkout)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "pip install -e '.[experiments]'" in done.stderr
        assert done.stderr.count("\n") == 1


def test_an_editable_install_finds_the_checkout_from_anywhere(tmp_path):
    """`models`, and `hydra_plugins` for Hydra's discovery, which the wheel does not have."""
    checkout = copy_tracked(tmp_path / "checkout")
    venv.create(tmp_path / "environment", with_pip=False, symlinks=True)
    python = tmp_path / "environment" / "bin" / "python"
    (site,) = (tmp_path / "environment").glob("lib/python*/site-packages")
    (site / "others.pth").write_text(str(Path(metadata.distribution("torch").locate_file(""))))
    pip_install(python, "--no-deps", "--no-build-isolation", "-e", checkout)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = "import models, hydra_plugins, anchorloss as a; print(models.__file__, *hydra_plugins.__path__, a.__file__)"
    found = run(python, "-c", code, cwd=elsewhere).stdout.split()
    assert len(found) == 3
    assert all(Path(path).is_relative_to(checkout) for path in found)
    composed = ("--cfg", "hydra", "hydra/launcher=processes")
    done = run(python, checkout / "train.py", *composed, cwd=elsewhere)
    assert "_target_: hydra_plugins.anchorloss_plugins." in done.stdout, done.stderr
