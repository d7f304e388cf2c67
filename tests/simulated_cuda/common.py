"""What the cases share: their settings, and a run trained on the simulated device or on the CPU."""

from __future__ import annotations

import contextlib
import gc
from types import SimpleNamespace

import pytest
import torch

from anchorloss.training.evaluation import EvaluationImages, Prediction, measure
from anchorloss.training.trainer import Trainer, TrainingImages
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


def on_gpu(context):
    """The training and evaluation images of a context, on the simulated device."""
    return TrainingImages.of(context.dataset, CUDA), EvaluationImages.of(context.dataset, CUDA)


def train(trainer, evaluation, epochs):
    """What each epoch reports, and the state after the last."""
    rows = []
    predict = Prediction(trainer.network, evaluation, trainer.settings.precision, trainer.stream)
    for epoch in range(epochs):
        trainer.start_epoch(epoch)
        for _ in range(trainer.steps):
            trainer.train_step()
        totals, rate = trainer.totals(), trainer.current_learning_rate
        found = measure(predict(), trainer.loss, evaluation.labels)
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
