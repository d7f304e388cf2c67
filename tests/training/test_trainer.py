"""The schedule, the warm-up of a graph, and what code of one's own draws and raises in a step."""

from __future__ import annotations

import copy
import math
import sys

import pytest
import torch

from anchorloss.errors import UserError
from anchorloss.training.schedule import learning_rate
from anchorloss.training.trainer import Trainer
from tests.in_process import data_of, settings
from tests.settings import model_settings, optim_settings


def test_learning_rate_of_the_paper_falls_at_160_and_180():
    optim = optim_settings()
    rates = [learning_rate(optim, epoch, 0, 391) for epoch in (0, 159, 160, 179, 180, 199)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_learning_rate_of_a_cosine_and_of_a_warm_up():
    optim = optim_settings(epochs=10, schedule="cosine", lr_warmup_epochs=2)
    assert learning_rate(optim, 0, 0, 5) == pytest.approx(0.1 / 10)
    assert learning_rate(optim, 5, 3, 5) == pytest.approx(0.05)
    assert learning_rate(optim, 9, 4, 5) == pytest.approx(0.05 * (1 + math.cos(0.9 * math.pi)))


def test_warming_up_for_a_graph_on_the_last_batch_leaves_no_trace():
    """Before a CUDA graph is captured its step is taken three times, also where the epoch has no image left after it."""
    (run,) = settings("loss=anchor_bg", "seeds=[7]")
    context = data_of(run)
    trainers = [Trainer(run, context) for _ in range(2)]
    for trainer in trainers:
        trainer.start_epoch(0)
        for _ in range(trainer.steps - 1):
            trainer.train_step()
    warmed, cold = trainers
    state = copy.deepcopy(warmed.state())
    warmed.warm_up(300 % 64, softmax=False)
    warmed.restore(state, 0)
    warmed.train_step()
    cold.train_step()
    assert warmed.totals() == cold.totals()
    for ours, theirs in zip(warmed.network.parameters(), cold.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)


NETWORKS = """
import torch
from torch import nn

class Drawing(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.head, self.drawn = nn.Linear(3072, num_classes), []

    def forward(self, images):
        self.drawn.append(torch.rand(1).item())
        return self.head(images.flatten(1))

def dropout(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3072, num_classes))

class FailsOnLargeBatches(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Linear(3072, num_classes)

    def forward(self, images):
        if len(images) > 2:
            raise ValueError("too many images")
        return self.head(images.flatten(1))
"""


@pytest.fixture
def networks(tmp_path, monkeypatch):
    """`own_steps`, a module with networks of one's own."""
    (tmp_path / "own_steps.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_steps", None)


def with_network(run, name):
    return run.model_copy(update={"model": model_settings(name.lower(), function=f"own_steps.{name}")})


def test_dropout_depends_on_the_run_alone(networks):
    """The same weights beside another run, after a restart within the epoch, and whatever the process drew before."""
    run, beside = (
        with_network(run, "dropout") for run in settings("loss=anchor_bg", "seeds=[1,0]", "precision=fp32")
    )
    context = data_of(run)
    alone, interleaved, other, resumed = (Trainer(one, context) for one in (run, run, beside, run))
    for trainer in (alone, interleaved, other):
        trainer.start_epoch(0)
    steps = range(alone.steps)
    for _ in steps:
        alone.train_step()
    for step in steps:
        torch.rand(1)
        other.train_step()
        interleaved.train_step()
        if step == 1:
            resumed.restore(copy.deepcopy(interleaved.state()), 0)
    for _ in steps[2:]:
        resumed.train_step()
    weights = [list(trainer.network.parameters()) for trainer in (alone, interleaved, resumed, other)]
    for ours, theirs, continued, different in zip(*weights, strict=True):
        assert torch.equal(ours, theirs)
        assert torch.equal(ours, continued)
        assert not torch.equal(ours, different)
    without = Trainer(run, context)
    without.network[1].p = 0.0
    without.start_epoch(0)
    for _ in steps:
        without.train_step()
    assert not torch.equal(without.network[2].weight, alone.network[2].weight)


def test_each_step_draws_its_own_numbers(networks):
    """None is drawn twice by two seeds in two epochs."""
    drawn = []
    for run in settings("loss=bce", "seeds=[0,1]"):
        context = data_of(run)
        trainer = Trainer(with_network(run, "Drawing"), context)
        for epoch in range(2):
            trainer.start_epoch(epoch)
            for _ in range(trainer.steps):
                trainer.train_step()
        drawn += trainer.network.drawn
    assert len(drawn) == len(set(drawn)) == 4 * trainer.steps


def test_a_step_leaves_the_generator_of_the_process_as_it_was(networks):
    run = with_network(settings("loss=bce")[0], "dropout")
    context = data_of(run)
    before = torch.get_rng_state()
    trainer = Trainer(run, context)
    trainer.start_epoch(0)
    trainer.train_step()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_that_fails_in_training_is_named_with_its_run(networks):
    run = with_network(settings("loss=bce")[0], "FailsOnLargeBatches")
    context = data_of(run)
    trainer = Trainer(run, context)
    trainer.start_epoch(0)
    with pytest.raises(
        UserError, match=rf"^{run.run}: model.function=own_steps.FailsOnLargeBatches fails .*too many images"
    ):
        trainer.train_step()
