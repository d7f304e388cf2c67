"""A data set in memory, and its checksum."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Arrays:
    """The images and labels of a data set.

    Attributes:
        train_images: uint8 (N, 3, 32, 32).
        train_labels: int64 (N,), 0 to C - 1.
        test_images: uint8 (M, 3, 32, 32).
        test_labels: int64 (M,).
        class_names: The names of the C classes.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]

    @property
    def checksum(self) -> str:
        """SHA-256 over images and labels, the same on machines of either byte order."""
        digest = hashlib.sha256()
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
        return f"sha256:{digest.hexdigest()}"
