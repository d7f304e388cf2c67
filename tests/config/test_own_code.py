"""Code that is not part of the package enters the identity by the hash of its source."""

from __future__ import annotations

import json
import sys

import pytest

from anchorloss.config.own_code import source_files, source_hash
from anchorloss.errors import UserError
from tests.commands import call
from tests.conftest import ROOT, SMALL
from tests.in_process import settings

LOSS = """
from torch.nn import functional as F
from {helper} import scale

def loss(logits, target):
    return scale(F.cross_entropy(logits, target))
"""
HELPER = "def scale(value):\n    return {factor} * value\n"


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A folder that is on the path, with a loss in two modules."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_loss.py").write_text(LOSS.format(helper="own_helper"))
    (tmp_path / "own_helper.py").write_text(HELPER.format(factor=2))
    return tmp_path


@pytest.mark.parametrize(
    "function",
    [
        *("anchorloss.loss.anchor_loss", "torch.nn.functional.cross_entropy"),
        *("own_nowhere.loss", "loss", "", ".loss", "own_nowhere", "..x.y"),
    ],
)
def test_what_is_known_or_not_found_has_none(function):
    assert source_hash(function) is None
    assert source_files([function]) == ()


def test_the_module_and_what_it_imports_count(code):
    first = source_hash("own_loss.loss")
    assert source_files(["own_loss.loss"]) == (code / "own_helper.py", code / "own_loss.py")
    (code / "own_helper.py").write_text(HELPER.format(factor=3))
    second = source_hash("own_loss.loss")
    assert first != second
    (code / "unrelated.py").write_text("x = 1\n")
    assert source_hash("own_loss.loss") == second
    (code / "own_helper.py").write_bytes(HELPER.format(factor=3).replace("\n", "\r\n").encode())
    assert source_hash("own_loss.loss") == second, "other line endings, same source"


@pytest.fixture
def package(code):
    """A package whose modules import each other, and a module in a folder without `__init__.py`."""
    inner = code / "own_package" / "inner"
    inner.mkdir(parents=True)
    (code / "own_package" / "__init__.py").write_text("from .inner import loss\n")
    (inner / "__init__.py").write_text("from .formula import *\n")
    (inner / "formula.py").write_text(LOSS.format(helper="..helper"))
    (code / "own_package" / "helper.py").write_text(HELPER.format(factor=1))
    (code / "own_space").mkdir()
    (code / "own_space" / "loss.py").write_text(
        "import own_package.helper as h\n\ndef loss(logits, target):\n    return h.scale(logits.mean())\n"
    )
    return code / "own_package"


# Made at commit 5d23178. Runs with code of one's own are found again by them, so they never change.
GOLDEN = {
    "own_loss.loss": "0a3c63f31ec6fc38",
    "own_package.loss": "41d6e4531819045a",
    "own_package.inner.loss": "55b62b961aa58778",
    "own_package.inner.formula.loss": "65a6bdde1f64f37a",
    "own_space.loss.loss": "b6b5970280f2478e",
}
OWN = ["loss.name=mine", "loss.function=own_loss.loss", "~loss.anchor", "~loss.gamma", "~loss.slack"]
OWN_NETWORK = ["model.name=net", "model.function=own_package.inner.loss", "+model.arguments.width=2"]
GOLDEN_RUNS = {
    "mine-resnet8-seed0-d0906cea8e": [],
    "mine-resnet8-seed0-bc0cf9d9b3": ["+loss.scores=softmax", "+loss.epsilon=1", "+loss.gamma=2"],
    "mine-net-seed0-57dd95d224": ["+loss.scores=softmax", "+loss.epsilon=1.0", "+loss.gamma=2", *OWN_NETWORK],
}


@pytest.mark.usefixtures("package")
def test_the_hash_of_the_same_source_never_changes():
    for function, expected in GOLDEN.items():
        assert source_hash(function) == expected, function
    for expected, overrides in GOLDEN_RUNS.items():
        (run,) = settings(*OWN, *overrides)
        assert run.run == expected


def test_relative_imports_within_a_package_count(package):
    for function in ("own_package.loss", "own_package.inner.formula.loss"):
        before = source_hash(function)
        (package / "helper.py").write_text(HELPER.format(factor=len(function)))
        assert source_hash(function) != before
        assert package / "helper.py" in source_files([function])


def test_modules_that_import_each_other_end(code):
    (code / "own_helper.py").write_text("import own_loss\n" + HELPER.format(factor=1))
    assert len(source_files(["own_loss.loss"])) == 2


def test_the_hash_executes_nothing(code):
    (code / "own_loss.py").write_text("raise SystemExit(3)\n")
    assert source_hash("own_loss.loss") is not None
    assert "own_loss" not in sys.modules


def test_a_function_of_an_installed_package_enters_by_its_version():
    found = source_hash("scipy.special.logsumexp")
    assert found is not None
    assert found == source_hash("scipy.special.expit") != source_hash("numpy.mean")
    assert source_files(["scipy.special.logsumexp"]) == ()


def test_a_config_that_names_other_code_is_refused(code):
    """As the record of a run does whose code has changed since."""
    with pytest.raises(UserError, match=r"loss\.source=0123: the code of own_loss\.loss is another now"):
        settings(*OWN, "+loss.source='0123'")


def test_changed_code_trains_again_and_is_dirty_until_committed(code, tmp_path, train, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{code}:{ROOT}")
    arguments = [*SMALL, "optim.epochs=1", *OWN, "experiment.name=own"]
    for factor, done in ((2, 0), (2, 1), (3, 0)):
        (code / "own_helper.py").write_text(HELPER.format(factor=factor))
        assert f"{done} of 1 are done" in train(*arguments, check=True).stdout
    records = [json.loads(path.read_text()) for path in (tmp_path / "results").glob("runs/own/*/record.json")]
    assert len({record["hash"] for record in records}) == 2
    assert all(record["provenance"]["dirty"] for record in records)
    table = call("make_table1.py", "--experiment", "own", "--results-dir", tmp_path / "results")
    assert "| 2 |" not in table.stdout.replace("  ", " ")
    assert "loss.source" in table.stdout + table.stderr
