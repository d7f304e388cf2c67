"""The textbook: what a run must give, by plain loops in float64 on the CPU that share no code with the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from anchorloss.data.dataset import Dataset
from anchorloss.loss import anchor_loss
from anchorloss.runs import checkpoint, weights
from anchorloss.runs.folder import PROGRESS, WEIGHTS, read_history, read_predictions, verify_files
from anchorloss.training import evaluation
from anchorloss.training import run as run_module
from anchorloss.training.device_data import DeviceData
from tests.in_process import SMALLER, counted_steps, data_of, finish, settings, start
from tests.training import small

SEED, BATCH = 1, 40
Rates = Sequence[Sequence[float]]
Losses = Sequence[Callable[[Tensor, Tensor], Tensor]]


class Epoch(NamedTuple):
    """`train_loss` per image and `train_correct` while training; then the network's `logits` of the evaluation set."""

    train_loss: float
    train_correct: int
    logits: Tensor


def train(
    network: nn.Module, optimizer: Optimizer, data: Dataset, rates: Rates, losses: Losses
) -> Iterator[Epoch]:
    """Train `network` from its present state, image by image cut out, flipped and normalised in float64.

    `rates` has the learning rate of each step, by epoch; `losses` the loss of each epoch. The last batch of an epoch has
    what is left.
    """
    images = len(data.train_labels)
    for epoch, (rates_of_epoch, loss_of_epoch) in enumerate(zip(rates, losses, strict=True)):
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([SEED, epoch])))
        order = generator.permutation(images)
        rows, columns = generator.integers(0, 9, (2, images))
        flips = generator.integers(0, 2, images)
        total, correct = 0.0, 0
        for step, rate in enumerate(rates_of_epoch):
            optimizer.param_groups[0]["lr"] = rate
            places = range(step * BATCH, min((step + 1) * BATCH, images))
            batch = [
                _augmented(data.train_images[order[at]], rows[at], columns[at], flips[at]) for at in places
            ]
            target = torch.stack([data.train_labels[order[at]] for at in places])
            logits = network(_normalised(torch.stack(batch), data))
            loss = loss_of_epoch(logits, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(target)
            correct += int((logits.argmax(1) == target).sum())
        assert places.stop == images
        network.eval()
        with torch.no_grad():
            logits = network(_normalised(data.evaluation_images, data))
        network.train()
        yield Epoch(total / images, correct, logits)


def ranks(logits: Tensor, target: Tensor) -> np.ndarray:
    """The place of each target when the classes are sorted by score, equal scores by class."""
    order = np.argsort(-logits.numpy(), axis=1, kind="stable")
    return (order == target.numpy()[:, None]).argmax(1)


def _augmented(image: Tensor, row: int, column: int, flip: int) -> Tensor:
    padded = torch.zeros(3, 40, 40, dtype=torch.uint8)
    padded[:, 4:36, 4:36] = image
    cropped = padded[:, row : row + 32, column : column + 32]
    return cropped.flip(2) if flip else cropped


def _normalised(images: Tensor, data: Dataset) -> Tensor:
    mean, std = (torch.tensor(value, dtype=torch.float64).view(3, 1, 1) for value in (data.mean, data.std))
    return (images.double() / 255 - mean) / std


def check_a_run(device: torch.device, results: Path) -> None:
    """A run that is stopped four times and resumed, from its record to its weights, against `train` in float64."""
    (run,) = settings(
        *SMALLER,
        "optim.lr=0.2",
        "optim.epochs=4",
        "optim.schedule=step",
        "optim.decay_at=[0.5,0.75]",
        "optim.decay_factor=4",
        "optim.lr_warmup_epochs=1.5",
        "optim.softmax_warmup_epochs=1",
        "optim.momentum=0.8",
        "optim.nesterov=true",
        "optim.weight_decay=0.02",
        "optim.evaluate_every=3",
        "loss=anchor_bg",
        f"seeds=[{SEED}]",
    )
    place = data_of(run)
    data, target = place.dataset, place.dataset.evaluation_labels
    rates = [
        [0.2 * min(1, (3 * epoch + step + 1) / 4.5) / fall for step in range(3)]
        for epoch, fall in enumerate((1, 1, 4, 16))
    ]

    def own_loss(logits, target):
        return anchor_loss(logits, target, **run.loss.arguments)

    torch.manual_seed(SEED)
    network = small.Small(100)
    torch.nn.init.constant_(network.classifier.bias, -np.log(99))
    initial = {name: value.clone() for name, value in network.state_dict().items()}
    network.double()
    optimizer = torch.optim.SGD(network.parameters(), lr=1, momentum=0.8, nesterov=True, weight_decay=0.02)
    expected = list(train(network, optimizer, data, rates, [F.cross_entropy, *[own_loss] * 3]))

    with counted_steps() as steps, pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "BATCH", 40)
        patch.setattr(run_module, "STEPS_AHEAD", 1)
        on_device = DeviceData.of(data, device)
        # After the first and second step, within the second epoch and within the third.
        for stop in (1, 2, 5, 8):
            training = start(run, on_device, results, keep_weights=True)
            while steps.count < stop:
                next(training)
            training.close()
        record = finish(start(run, on_device, results, keep_weights=True))
        assert steps.count == 4 * 3
    folder = results / "runs" / run.experiment / run.run
    verify_files(folder, record)
    rows = read_history(folder).to_dict("records")
    predictions = read_predictions(folder)
    kept = small.Small(100)
    weights.load_into(kept, (folder / WEIGHTS).read_bytes(), folder)
    assert not (folder / checkpoint.NEWEST).exists()
    assert not (folder / PROGRESS).exists()

    assert len(rows) == 4
    top1s = {}
    for number, (row, epoch) in enumerate(zip(rows, expected, strict=True), 1):
        assert row["epoch"] == number
        assert row["learning_rate"] == pytest.approx(rates[number - 1][-1])
        assert row["train_loss"] == pytest.approx(epoch.train_loss, rel=1e-5)
        assert row["train_top1"] == epoch.train_correct
        if number < 3:
            assert np.isnan([row["test_loss"], row["top1"], row["top5"]]).all()
            continue
        rank = ranks(epoch.logits, target)
        assert (row["top1"], row["top5"]) == ((rank == 0).sum(), (rank < 5).sum())
        assert row["test_loss"] == pytest.approx(float(own_loss(epoch.logits, target)), rel=1e-5)
        top1s[number] = row["top1"], row["top5"]
    # So that the best epoch is told from the last.
    assert top1s[3][0] > top1s[4][0]
    assert (record.best.epoch, record.best.top1, record.best.top5) == (3, *top1s[3])
    assert (record.status, record.seed, record.epochs) == ("finished", SEED, 4)
    assert (record.top1, record.top5, record.test_loss) == (*top1s[4], rows[3]["test_loss"])
    assert (record.data.training_images, record.data.evaluation_images) == (100, 100)
    assert (record.provenance.resumed, record.provenance.precision) == (4, "fp32")
    assert record.provenance.threads == (1 if device.type == "cpu" else None)
    rank, scores = ranks(expected[3].logits, target), expected[3].logits.sigmoid()
    assert (predictions.target == target.numpy()).all()
    assert (predictions.predicted == expected[3].logits.argmax(1).numpy()).all()
    # Two scores so near that float32 swaps them are possible, not many.
    assert (predictions.target_rank != rank).sum() <= 2
    assert np.abs(predictions.confidence - scores.amax(1).numpy()).max() < 1e-3
    for name, value in network.state_dict().items():
        error, change = kept.state_dict()[name].double() - value, value - initial[name]
        assert error.double().norm() <= 1e-3 * change.double().norm(), name
