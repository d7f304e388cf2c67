"""The loop a textbook would write: PIL images one by one, a DataLoader, float32, NCHW, eager, SGD.

The transforms are torchvision's `RandomCrop(32, padding=4)`, `RandomHorizontalFlip`, `ToTensor` and `Normalize`, done
with the calls that torchvision makes; torchvision itself only imports beside the torch that it was built for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

import models
from anchorloss.sweep.side_by_side import cores

# Seconds of loading by which the number of the loader's workers is chosen.
LOADING_SECONDS = 2.0


class TextbookImages(TorchDataset):
    """`images` uint8 (N, 3, 32, 32); an item is a float32 image and its label."""

    def __init__(
        self, images: Tensor, labels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        self._images = images.permute(0, 2, 3, 1).contiguous().numpy()
        self._labels = labels.tolist()
        self._mean = mean
        self._std = std

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = ImageOps.expand(Image.fromarray(self._images[index]), border=4, fill=0)
        top, left = (int(torch.randint(0, 9, (1,))) for _ in range(2))
        image = image.crop((left, top, left + 32, top + 32))
        if torch.rand(1) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image, copy=True)).permute(2, 0, 1).contiguous()
        pixels = pixels.to(torch.float32).div(255)
        mean = torch.as_tensor(self._mean).view(-1, 1, 1)
        std = torch.as_tensor(self._std).view(-1, 1, 1)
        return pixels.sub_(mean).div_(std), self._labels[index]


class TextbookLoop:
    """Trains `model` with binary cross entropy; `steps` may be called again and goes on where it was.

    `workers` is the number of the loader's processes; None takes as many as load fastest on this machine.
    """

    def __init__(
        self,
        model: str,
        data: TextbookImages,
        batch_size: int,
        device: torch.device,
        workers: int | None = None,
        fused: bool = False,
    ) -> None:
        self.device = device
        workers = fastest_workers(data, batch_size) if workers is None else workers
        # Batches that the workers have ready when nobody asks for one.
        self.prefetched = 2 * workers
        self.loader = _loader(data, batch_size, workers, pin_memory=device.type == "cuda")
        self.network = models.build(model, 100, prior_bias=True).to(device)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, fused=fused
        )
        self.loss: Callable[[Tensor, Tensor], Tensor] = textbook_loss
        self.bf16 = False
        self.total_loss = 0.0
        self.correct = 0.0
        self._batches = self._endless()

    def steps(self, count: int) -> None:
        """Carry out `count` steps."""
        for _ in range(count):
            images, target = next(self._batches)
            images, target = images.to(self.device), target.to(self.device)
            self.optimizer.zero_grad()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                logits = self.network(images)
            loss = self.loss(logits.float(), target)
            loss.backward()
            self.optimizer.step()
            self.total_loss += loss.item() * len(target)
            self.correct += (logits.argmax(1) == target).sum().item()

    def _endless(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from self.loader


def fastest_workers(data: TextbookImages, batch_size: int, seconds: float = LOADING_SECONDS) -> int:
    """The number of loader workers, of 1, 2, 4, … up to the cores, with which batches come fastest.

    The search ends at the first number that is not faster than the one before: a machine of two cores tries two.
    """
    best, best_rate = 1, 0.0
    workers = 1
    while workers <= cores():
        batches = iter(_loader(data, batch_size, workers))
        for _ in range(2 * workers):  # what was loaded while the workers started
            next(batches, None)
        begun, count = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds and next(batches, None) is not None:
            count += 1
        rate = count / (time.perf_counter() - begun)
        if rate <= best_rate:
            break
        best, best_rate = workers, rate
        workers *= 2
    return best


def _loader(data: TextbookImages, batch_size: int, workers: int, *, pin_memory: bool = False) -> DataLoader:
    return DataLoader(
        data, batch_size, shuffle=True, num_workers=workers, drop_last=True, pin_memory=pin_memory
    )


def textbook_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy step by step, summed over classes, averaged over the batch."""
    labels = torch.nn.functional.one_hot(target, logits.shape[1]).to(logits.dtype)
    q = torch.sigmoid(logits).clamp(1e-7, 1 - 1e-7)
    return -(labels * torch.log(q) + (1 - labels) * torch.log(1 - q)).sum(1).mean()
