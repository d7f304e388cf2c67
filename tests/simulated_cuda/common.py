"""What the cases share: their settings, and a run trained on the simulated device or on the CPU."""

from __future__ import annotations

import contextlib
import gc
from types import SimpleNamespace

import pytest
import torch

from anchorloss.training.device_data import DeviceData
from anchorloss.training.evaluation import measure, predict
from anchorloss.training.trainer import Trainer
from tests.simulated_cuda import small
from tests.simulated_cuda.device import simulated_cuda

CUDA = torch.device("cuda")
SMALL = (*small.OVERRIDES, "data.training_images=100", "data.test_images=100", "optim.batch_size=40")
# Rates that float32 holds exactly: a rate in a tensor and one in Python give the same bits.
EXACT = (
    "optim.schedule=step",
    "optim.lr=0.046875",
    "optim.decay_factor=2",
    "optim.epochs=4",
    "optim.decay_at=[0.5,0.75]",
)


@contextlib.contextmanager
def simulated():
    """The simulated device; afterwards nothing may have been found wrong on it."""
    with simulated_cuda() as gpu:
        yield gpu
        gc.collect()
    assert not gpu.errors, gpu.errors[:5]


@contextlib.contextmanager
def counted_steps(at_each=lambda count: None):
    """Count the steps that are trained, as `count`, and call `at_each` with it after each."""
    steps = SimpleNamespace(count=0)
    train_step = Trainer.train_step

    def counting(trainer):
        images = train_step(trainer)
        steps.count += 1
        at_each(steps.count)
        return images

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", counting)
        yield steps


def on_gpu(data):
    """The same data on the simulated device."""
    return DeviceData.of(data.dataset, CUDA)


def train(trainer, epochs):
    """What each epoch reports, and the state after the last."""
    rows = []
    for epoch in range(epochs):
        trainer.start_epoch(epoch)
        for _ in range(trainer.steps):
            trainer.train_step()
        totals, rate = trainer.totals(), trainer.current_learning_rate
        logits = predict(trainer.network, trainer.data, trainer.settings.precision, trainer.stream)
        found = measure(logits, trainer.loss, trainer.data.evaluation_labels)
        rows.append((totals, rate, found.top1, found.top5, found.loss, found.factors, found.predictions()))
    return rows, trainer.state()


def assert_same_state(ours, expected):
    """Two states of a trainer have the same bits."""
    assert ours["step_in_epoch"] == expected["step_in_epoch"]
    for kind in ("network", "totals"):
        assert ours[kind].keys() == expected[kind].keys()
        for name, value in expected[kind].items():
            # Bytes, because a total that is not a number equals itself.
            assert ours[kind][name].numpy().tobytes() == value.numpy().tobytes(), name
    for index, (buffer, value) in enumerate(zip(ours["momentum"], expected["momentum"], strict=True)):
        assert torch.equal(buffer, value), f"momentum {index}"
