"""What a run must give, by plain loops on the CPU that share no code with the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from anchorloss.data.dataset import Dataset


@dataclass(frozen=True)
class Epoch:
    """`train_loss` per image and `train_correct` while training; then the network's `logits` of the evaluation set."""

    train_loss: float
    train_correct: int
    logits: Tensor


def train(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Dataset,
    seed: int,
    batch_size: int,
    rates: Sequence[Sequence[float]],
    losses: Sequence[Callable[[Tensor, Tensor], Tensor]],
    forward: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Epoch]:
    """Train `network`, image by image cut out, flipped and normalised in float64.

    Args:
        network: In its initial state.
        optimizer: Of its parameters.
        data: The images.
        seed: The run's seed.
        batch_size: B; the last batch of an epoch has what is left.
        rates: The learning rate of each step, by epoch.
        losses: The loss of each epoch.
        forward: From normalised images to logits; the network by default.
    """
    forward = forward or network
    dtype = next(network.parameters()).dtype
    images = len(data.train_labels)
    for epoch, (rates_of_epoch, loss_of_epoch) in enumerate(zip(rates, losses, strict=True)):
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch])))
        order = generator.permutation(images)
        rows, columns = generator.integers(0, 9, (2, images))
        flips = generator.integers(0, 2, images)
        total, correct = 0.0, 0
        for step, rate in enumerate(rates_of_epoch):
            optimizer.param_groups[0]["lr"] = rate
            places = range(step * batch_size, min((step + 1) * batch_size, images))
            batch = [
                _augmented(data.train_images[order[at]], rows[at], columns[at], flips[at]) for at in places
            ]
            target = torch.stack([data.train_labels[order[at]] for at in places])
            logits = forward(_normalised(torch.stack(batch), data).to(dtype))
            loss = loss_of_epoch(logits, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(target)
            correct += int((logits.argmax(1) == target).sum())
        assert places.stop == images
        network.eval()
        with torch.no_grad():
            logits = forward(_normalised(data.evaluation_images, data).to(dtype))
        network.train()
        yield Epoch(total / images, correct, logits)


def ranks(logits: Tensor, target: Tensor) -> np.ndarray:
    """The place of each target when the classes are sorted by score, equal scores by class."""
    order = np.argsort(-logits.numpy(), axis=1, kind="stable")
    return (order == target.numpy()[:, None]).argmax(1)


def assert_near(ours: Tensor, expected: Tensor, initial: Tensor, tolerance: float, name: str) -> None:
    """`ours` has moved from `initial` as `expected` has, but for a part of `tolerance`."""
    change = (expected.double() - initial.double()).norm()
    error = (ours.double() - expected.double()).norm()
    assert error <= tolerance * change, f"{name}: moved by {change:.2e}, but {error:.2e} away"


def _augmented(image: Tensor, row: int, column: int, flip: int) -> Tensor:
    padded = torch.zeros(3, 40, 40, dtype=torch.uint8)
    padded[:, 4:36, 4:36] = image
    cropped = padded[:, row : row + 32, column : column + 32]
    return cropped.flip(2) if flip else cropped


def _normalised(images: Tensor, data: Dataset) -> Tensor:
    mean, std = (torch.tensor(value, dtype=torch.float64).view(3, 1, 1) for value in (data.mean, data.std))
    return (images.double() / 255 - mean) / std
