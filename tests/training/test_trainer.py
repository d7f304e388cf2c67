"""The schedule, and what code of one's own draws and raises in a step."""

from __future__ import annotations

import copy
import importlib
import math
import sys

import pytest
import torch

from anchorloss.config.settings import LossSettings
from anchorloss.errors import UserError
from anchorloss.training.schedule import learning_rate
from anchorloss.training.trainer import Trainer
from tests.in_process import data_of, settings
from tests.settings import model_settings, optim_settings


@pytest.mark.parametrize(
    ("changed", "rates"),
    [
        ({}, {(0, 0): 0.1, (159, 4): 0.1, (160, 0): 0.01, (179, 4): 0.01, (180, 0): 0.001, (199, 4): 0.001}),
        (
            {"epochs": 10, "schedule": "cosine", "lr_warmup_epochs": 2},
            {(0, 0): 0.1 / 10, (5, 3): 0.05, (9, 4): 0.05 * (1 + math.cos(0.9 * math.pi))},
        ),
    ],
    ids=["paper", "cosine with a warm-up"],
)
def test_learning_rate_at_epoch_and_step(changed, rates):
    optim = optim_settings(**changed)
    assert {place: learning_rate(optim, *place, 5) for place in rates} == pytest.approx(rates)


CODE = """
import torch
from torch import nn

DRAWN = []

class Drawing(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Linear(3072, num_classes)

    def forward(self, images):
        DRAWN.append(torch.rand(1).item())
        return self.head(images.flatten(1))

def loss(logits, target):
    DRAWN.append(torch.rand(1).item())
    return nn.functional.cross_entropy(logits, target)

class FailsOnLargeBatches(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Linear(3072, num_classes)

    def forward(self, images):
        if len(images) > 2:
            raise ValueError("too many images")
        return self.head(images.flatten(1))
"""
LOSS = LossSettings.model_validate({"name": "own", "function": "own_steps.loss", "source": "0" * 16})


@pytest.fixture
def code(tmp_path, monkeypatch):
    """`own_steps`, a module of one's own."""
    (tmp_path / "own_steps.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("own_steps")
    sys.modules.pop("own_steps", None)


def with_network(run, name):
    return run.model_copy(update={"model": model_settings(name.lower(), function=f"own_steps.{name}")})


@pytest.mark.parametrize("parts", ["network", "loss", "network and loss"])
def test_what_is_drawn_in_a_step_depends_on_seed_epoch_and_step_alone(code, parts):
    """The same numbers beside another run, after a restart within the epoch, and whatever the process drew before."""
    runs = settings("loss=bce", "seeds=[0,1]")
    if "network" in parts:
        runs = [with_network(run, "Drawing") for run in runs]
    if "loss" in parts:
        runs = [run.model_copy(update={"loss": LOSS}) for run in runs]
    run, data = runs[0], data_of(runs[0])

    def drawn(trainer, steps=1):
        code.DRAWN.clear()
        for _ in range(steps):
            trainer.train_step()
        return list(code.DRAWN)

    alone, beside, interleaved, resumed = (Trainer(one, data) for one in (run, runs[1], run, run))
    before = torch.get_rng_state()
    expected = drawn(alone, 3)
    others = drawn(beside, 2)
    assert torch.equal(torch.get_rng_state(), before)
    alone.start_epoch(1)
    numbers = [*expected, *others, *drawn(alone, 3)]
    assert len(numbers) == len(set(numbers)) == (16 if "and" in parts else 8)
    found = []
    for _ in range(3):
        torch.rand(1)
        drawn(beside)
        found += drawn(interleaved)
    assert found == expected
    resumed.restore(copy.deepcopy(interleaved.state()), 0)
    assert drawn(resumed) == drawn(interleaved)


def test_a_network_that_fails_in_training_is_named_with_its_run(code):
    run = with_network(settings("loss=bce")[0], "FailsOnLargeBatches")
    trainer = Trainer(run, data_of(run))
    with pytest.raises(
        UserError, match=rf"^{run.run}: model.function=own_steps.FailsOnLargeBatches fails .*too many images"
    ):
        trainer.train_step()
