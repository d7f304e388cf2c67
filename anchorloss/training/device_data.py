"""A data set on the device where runs train, shared by all runs on it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from anchorloss.data.augmentation import pad_images
from anchorloss.data.dataset import Dataset


@dataclass(frozen=True)
class DeviceData:
    """A data set, and its images and labels on a device."""

    dataset: Dataset  # as it was read, in memory
    device: torch.device
    train_images: Tensor  # padded and packed for `augmentation.augment`, int32 (N, 40, 40)
    train_labels: Tensor  # int64 (N,)
    evaluation_images: Tensor  # uint8 (M, 3, 32, 32)
    evaluation_labels: Tensor  # int64 (M,)

    @staticmethod
    def of(dataset: Dataset, device: torch.device) -> DeviceData:
        """Copy the images to the device."""
        return DeviceData(
            dataset,
            device,
            pad_images(dataset.train_images).to(device),
            dataset.train_labels.to(device),
            dataset.evaluation_images.to(device),
            dataset.evaluation_labels.to(device),
        )

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.dataset.class_names)
