"""Which images a run trains on and which it is evaluated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anchorloss.config.settings import DATA_SETS, DataSettings
from anchorloss.data import cifar, custom, synthetic
from anchorloss.data.arrays import Arrays
from anchorloss.data.cifar import ARCHIVES
from anchorloss.errors import UserError


@dataclass(frozen=True)
class Dataset:
    """The images that a run trains on and is evaluated on, in memory.

    Attributes:
        name: As in `data.name`.
        label: What tables and figures call it: CIFAR-100, CIFAR-10, SYNTHETIC, or the name of a custom data set.
        checksum: `md5:…` or `sha256:…` of the whole data set.
        class_names: A name for each label.
        train_images: uint8 (N, 3, 32, 32).
        train_labels: int64 (N,).
        evaluation_images: uint8 (M, 3, 32, 32).
        evaluation_labels: int64 (M,).
        evaluated_on: `test` or `validation`.
        mean: Of each channel of the training set, pixels in [0, 1].
        std: The same for the standard deviation.
    """

    name: str
    label: str
    checksum: str
    class_names: tuple[str, ...]
    train_images: Tensor
    train_labels: Tensor
    evaluation_images: Tensor
    evaluation_labels: Tensor
    evaluated_on: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def load_dataset(settings: DataSettings) -> Dataset:
    """Read the images that the settings name into memory, split as they say.

    With `evaluate_on` "validation" CIFAR's test file is never opened.

    Raises:
        UserError: the data set is missing or damaged, or cannot be split so; the message names the key and the remedy.
    """
    on_validation = settings.evaluate_on == "validation"
    if settings.function is not None:
        made = custom.load(settings.function, Path(settings.root), settings.arguments)
        whole = _from_arrays(settings.name, made)
    elif settings.name == "synthetic":
        made = synthetic.make(settings.training_images or 0, settings.test_images or 0)
        whole = _from_arrays(settings.name, made)
    else:
        whole = _cifar(settings.name, Path(settings.root), settings.download, read_test=not on_validation)
    if settings.validation == 0:
        return whole
    classes = len(whole.class_names)
    held_out = _held_out(whole.train_labels.numpy(), classes, settings.validation, settings.validation_seed)
    kept = torch.from_numpy(~held_out)
    part = replace(whole, train_images=whole.train_images[kept], train_labels=whole.train_labels[kept])
    if not on_validation:
        return part
    return replace(
        part,
        evaluation_images=whole.train_images[~kept],
        evaluation_labels=whole.train_labels[~kept],
        evaluated_on="validation",
    )


def _cifar(name: str, root: Path, download: bool, *, read_test: bool) -> Dataset:
    archive = ARCHIVES[name]
    names = [*archive.train, *(archive.test if read_test else ()), *archive.meta]
    if download and cifar.locate(archive, root) is None:
        cifar.download(archive, root)
    source = cifar.Source(archive, root, names)
    train_images, train_labels = source.images(archive.train)
    if read_test:
        test_images, test_labels = source.images(archive.test)
    else:
        test_images, test_labels = train_images[:0], train_labels[:0]
    arrays = Arrays(train_images, train_labels, test_images, test_labels, source.class_names())
    return _dataset(name, arrays, archive.checksum, DATA_SETS[name]["mean"], DATA_SETS[name]["std"])


def _from_arrays(name: str, arrays: Arrays) -> Dataset:
    pixels = arrays.train_images.astype(np.float64) / 255
    mean, std = (f(pixels, axis=(0, 2, 3)).tolist() for f in (np.mean, np.std))
    return _dataset(name, arrays, arrays.checksum, mean, std)


def _dataset(
    name: str, arrays: Arrays, checksum: str, mean: Sequence[float], std: Sequence[float]
) -> Dataset:
    return Dataset(
        name=name,
        label=DATA_SETS.get(name, {}).get("label", name),
        checksum=checksum,
        class_names=arrays.class_names,
        train_images=torch.from_numpy(arrays.train_images),
        train_labels=torch.from_numpy(arrays.train_labels),
        evaluation_images=torch.from_numpy(arrays.test_images),
        evaluation_labels=torch.from_numpy(arrays.test_labels),
        evaluated_on="test",
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
    )


def _held_out(labels: np.ndarray, classes: int, validation: int, seed: int) -> np.ndarray:
    """Choose the images to hold out, bool (N,): `validation` of them, the same number in each class."""
    if validation % classes or validation >= len(labels):
        raise UserError(
            f"data.validation={validation}: must be a multiple of the {classes} classes and below {len(labels)}"
        )
    generator = np.random.Generator(np.random.PCG64(seed))
    held_out = np.zeros(len(labels), dtype=bool)
    for label in range(classes):
        members = np.flatnonzero(labels == label)
        if len(members) <= validation // classes:
            raise UserError(
                f"data.validation={validation}: leaves no training image of class {label}; hold out fewer"
            )
        held_out[generator.permutation(members)[: validation // classes]] = True
    return held_out
