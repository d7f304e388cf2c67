"""How a batch is drawn and augmented: pad 4, random crop, random flip, each image by itself (He et al., section 4.2).

What is random is drawn once an epoch, on the CPU, as a pure function of (seed, epoch), and copied to the device: it is
the same on every device, and a resumed run needs no generator's state. Crops and flips are then one gather a batch.
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
    """One epoch's randomness; entry k belongs to the k-th image that is drawn.

    `order` int64 (N,): which image. `rows`, `columns` int64 (N,), 0 to 2·pad: where its crop begins. `flip` bool (N,).
    """

    order: Tensor
    rows: Tensor
    columns: Tensor
    flip: Tensor

    def to(self, device: torch.device) -> EpochPlan:
        """The same plan on another device."""
        return EpochPlan(*(getattr(self, field.name).to(device) for field in fields(self)))


def plan_epoch(seed: int, epoch: int, images: int, pad: int = PAD) -> EpochPlan:
    """Draw the plan of `epoch` (0-based) over `images` training images, on the CPU."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch])))
    order = generator.permutation(images)
    rows, columns = generator.integers(0, 2 * pad + 1, (2, images))
    flip = generator.integers(0, 2, images) == 1
    return EpochPlan(*(torch.from_numpy(np.ascontiguousarray(part)) for part in (order, rows, columns, flip)))


def pad_images(images: Tensor, pad: int = PAD) -> Tensor:
    """Pad uint8 (N, 3, H, W) with black and pack each pixel into one number: int32 (N, H+2·pad, W+2·pad).

    Moving whole pixels of four bytes makes crops and flips about twenty times as fast on a CPU as moving bytes.
    """
    padded = torch.nn.functional.pad(images, (pad, pad, pad, pad, 0, 1))
    return padded.permute(0, 2, 3, 1).contiguous().view(torch.int32).squeeze(-1)


def augment(padded: Tensor, index: Tensor, rows: Tensor, columns: Tensor, flip: Tensor) -> Tensor:
    """Crop and flip images `index` (B,) of `padded` as `rows`, `columns`, `flip` (B,) say: uint8 (B, 3, 32, 32).

    One gather of windows; the host looks at no value. The result is laid out channels-last.
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
    """uint8 (N, 3, 32, 32) to (pixel / 255 − mean) / std, computed in float32, as `dtype`."""
    scale, shift = _scale_and_shift(mean, std, images.device)
    pixels = images.to(torch.float32, memory_format=torch.channels_last)
    return torch.addcmul(shift, pixels, scale).to(dtype).contiguous(memory_format=memory_format)


@lru_cache
def _scale_and_shift(
    mean: tuple[float, float, float], std: tuple[float, float, float], device: torch.device
) -> tuple[Tensor, Tensor]:
    """As whole images, because a CPU multiplies those ten times as fast as it broadcasts three numbers over pixels.

    Kept, because a CUDA graph cannot copy from the host.
    """
    scale = torch.tensor([1 / (255 * deviation) for deviation in std], dtype=torch.float32)
    shift = torch.tensor([-centre / deviation for centre, deviation in zip(mean, std, strict=True)])
    images = [values.view(1, 3, 1, 1).expand(1, 3, SIZE, SIZE) for values in (scale, shift)]
    scale_image, shift_image = (
        image.contiguous(memory_format=torch.channels_last).to(device) for image in images
    )
    return scale_image, shift_image
