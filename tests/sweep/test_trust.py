"""A run folder is code: rerun and evaluate call nothing that is not this checkout's, unless they are told to."""

from __future__ import annotations

from pathlib import Path

import pytest

from anchorloss.config.settings import LossSettings
from anchorloss.errors import UserError
from anchorloss.sweep.trust import require_trusted
from tests.commands import call
from tests.run_folders import finish_run, make_settings


def run_with(results: Path, function: str) -> Path:
    settings = make_settings("bce", epochs=1)
    loss = LossSettings(name="other", function=function)
    return finish_run(results, settings.model_copy(update={"loss": loss}), images=100)


@pytest.mark.parametrize(
    "function",
    [
        "subprocess.run",
        "shutil.rmtree",
        "torch.os.system",
        "torch.hub.load",
        "torch.nn.functional.importlib.import_module",
        "anchorloss.runs.folder.yaml.unsafe_load",
        "received.loss",
    ],
)
def test_a_function_that_is_no_code_of_this_checkout_is_refused(tmp_path, monkeypatch, function):
    (tmp_path / "received.py").write_text("raise SystemExit('was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    folder = run_with(tmp_path, function)
    with pytest.raises(
        UserError, match=rf"loss\.function={function} is no code of this checkout; .* --trust-code"
    ):
        require_trusted([folder])


@pytest.mark.parametrize(
    "function",
    [
        "anchorloss.loss.anchor_loss",
        "torch.nn.functional.cross_entropy",
        "tests.reference_loss.loss_and_gradient",
    ],
)
def test_code_of_this_checkout_is_not(tmp_path, function):
    require_trusted([run_with(tmp_path, function)])


def test_the_scripts_ask_first(tmp_path):
    folder = run_with(tmp_path, "shutil.rmtree")
    (tmp_path / "data").mkdir()
    for script in ("rerun.py", "evaluate.py"):
        done = call(script, folder, "--data-root", tmp_path / "data")
        assert done.returncode == 2
        assert "shutil.rmtree is no code of this checkout" in done.stderr
        trusted = call(script, folder, "--data-root", tmp_path / "data", "--trust-code")
        assert "no code of this checkout" not in trusted.stderr
    assert (tmp_path / "data").exists()
