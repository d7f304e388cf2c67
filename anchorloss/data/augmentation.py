"""Draw and augment batches: pad by 4, random crop, random flip, for each image by itself (He et al., section 4.2).

All random numbers of an epoch are drawn on the CPU, as a pure function of (seed, epoch), and copied to the device: they
are the same on every device, and a resumed run needs no generator state. Crops and flips are then one gather a batch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

SIZE = 32
PAD = 4


@dataclass(frozen=True)
class EpochPlan:
    """The random numbers of one epoch; entry k belongs to the k-th image drawn.

    Attributes:
        order: The image's index, int64 (N,).
        rows: First row of its crop, int64 (N,), 0 to 8.
        columns: First column of its crop, int64 (N,), 0 to 8.
        flip: Whether it is flipped, bool (N,).
    """

    order: Tensor
    rows: Tensor
    columns: Tensor
    flip: Tensor

    def to(self, device: torch.device) -> EpochPlan:
        """The same plan on another device."""
        return EpochPlan(*(getattr(self, field.name).to(device) for field in fields(self)))


def plan_epoch(seed: int, epoch: int, images: int) -> EpochPlan:
    """Draw the plan of `epoch` (0-based) over `images` training images, on the CPU."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch])))
    order = generator.permutation(images)
    rows, columns = generator.integers(0, 2 * PAD + 1, (2, images))
    flip = generator.integers(0, 2, images) == 1
    return EpochPlan(*(torch.from_numpy(np.ascontiguousarray(part)) for part in (order, rows, columns, flip)))


def pad_images(images: Tensor) -> Tensor:
    """Pad uint8 (N, 3, H, W) with black and pack each pixel into one number: int32 (N, H + 8, W + 8).

    A CPU moves whole pixels of four bytes much faster than single bytes.
    """
    padded = torch.nn.functional.pad(images, (PAD, PAD, PAD, PAD, 0, 1))
    return padded.permute(0, 2, 3, 1).contiguous().view(torch.int32).squeeze(-1)


def augment(padded: Tensor, index: Tensor, rows: Tensor, columns: Tensor, flip: Tensor) -> Tensor:
    """Crop and flip images `index` (B,) of `padded` by `rows`, `columns`, `flip` (B,): uint8 (B, 3, 32, 32).

    One gather of windows, without waiting for the device. The result is channels-last.
    """
    windows = padded.unfold(1, SIZE, 1).unfold(2, SIZE, 1)
    cropped = windows[index, rows, columns]
    cropped = torch.where(flip[:, None, None], cropped.flip(2), cropped)
    return cropped.view(torch.uint8).view(len(index), SIZE, SIZE, 4)[..., :3].permute(0, 3, 1, 2)


def normalize(
    images: Tensor,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    dtype: torch.dtype = torch.float32,
    memory_format: torch.memory_format = torch.channels_last,
) -> Tensor:
    """Normalise uint8 images (N, 3, 32, 32) to (pixel / 255 − mean) / std, computed in float32, as `dtype`."""
    scale, shift = _scale_and_shift(mean, std, images.device)
    pixels = images.to(torch.float32, memory_format=torch.channels_last)
    return torch.addcmul(shift, pixels, scale).to(dtype).contiguous(memory_format=memory_format)


@lru_cache
def _scale_and_shift(
    mean: tuple[float, float, float], std: tuple[float, float, float], device: torch.device
) -> tuple[Tensor, Tensor]:
    """As whole images, which a CPU multiplies much faster than it broadcasts three numbers over pixels.

    Cached, because a CUDA graph cannot copy from the host.
    """
    scale = torch.tensor([1 / (255 * deviation) for deviation in std], dtype=torch.float32)
    shift = torch.tensor([-centre / deviation for centre, deviation in zip(mean, std, strict=True)])
    images = [values.view(1, 3, 1, 1).expand(1, 3, SIZE, SIZE) for values in (scale, shift)]
    scale_image, shift_image = (
        image.contiguous(memory_format=torch.channels_last).to(device) for image in images
    )
    return scale_image, shift_image
