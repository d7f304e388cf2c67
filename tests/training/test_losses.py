"""A loss config that cannot be used is one line naming the key."""

from __future__ import annotations

import sys

import pytest

from anchorloss.config.identity import LossSettings
from anchorloss.errors import UserError
from anchorloss.training.build import _check_loss as resolve

MODULES = {
    "raises": "1 / 0\n",
    "exits": "raise SystemExit(7)\n",
    "unparsed": "def loss(:\n",
    "needs": "import a_module_that_is_not_there\n",
    "losses": """
value = 3
def constant(logits, target):
    return logits.detach().sum()
def one_each(logits, target):
    return logits.sum(1)
def fails(logits, target):
    raise RuntimeError("two\\nlines")
def number(logits, target):
    return 1.0
def of_the_target_alone(logits, target):
    return target.float().requires_grad_().mean()
def infinite(logits, target):
    return logits.mean() / 0
def steep(logits, target):
    return (logits - logits[0, 0]).square().sum().sqrt() + (logits[0, 0] - logits[0, 0].detach()).sqrt()
""",
}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("own.losses.nothing", "nothing"),
        ("own.nowhere.loss", "nowhere"),
        ("own.losses.value", "cannot be imported"),
        ("own.raises.loss", "ZeroDivisionError: division by zero"),
        ("own.exits.loss", "SystemExit: 7"),
        ("own.unparsed.loss", "SyntaxError"),
        ("own.needs.loss", "a_module_that_is_not_there"),
        (".losses.constant", "not an import path"),
        ("constant", "not an import path"),
        ("", "not an import path"),
        ("a b.c", "not an import path"),
        (".".join("a" * 100_000), "not an import path"),
        ("a.b\0", "not an import path"),
        ("torch.relu", "no signature|fails with"),
        ("builtins.print", "must return the mean|fails with"),
        ("builtins.dict", "no signature|fails with"),
        ("own.losses.constant", "must return the mean"),
        ("own.losses.one_each", "must return the mean"),
        ("own.losses.number", "must return the mean"),
        ("own.losses.fails", "fails with"),
        ("own.losses.of_the_target_alone", "differentiable in the logits"),
        ("own.losses.infinite", "not finite"),
        ("own.losses.steep", "not finite"),
    ],
)
def test_a_function_that_is_no_loss(function, message, tmp_path, monkeypatch, capfd):
    (tmp_path / "own").mkdir()
    for name, text in MODULES.items():
        (tmp_path / "own" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=message) as raised:
        resolve(LossSettings("mine", function, {}), 100)
    assert str(raised.value).startswith(("loss.function=", "loss=mine"))
    assert capfd.readouterr().err == ""
    for name in [name for name in sys.modules if name.partition(".")[0] == "own"]:
        del sys.modules[name]


def test_an_unknown_argument_is_named_with_those_there_are():
    with pytest.raises(UserError, match=r"loss\.gama=1: anchorloss\.loss\.anchor_loss takes gamma, anchor, "):
        resolve(LossSettings("mine", "anchorloss.loss.anchor_loss", {"gama": 1}), 100)
