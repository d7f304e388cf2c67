"""Which images a run trains on and which it is evaluated on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anchorloss.config.settings import DATA_SETS, DataSettings
from anchorloss.data import cifar, custom, synthetic
from anchorloss.errors import UserError


@dataclass(frozen=True)
class Dataset:
    """The images that a run trains on and is evaluated on, in memory.

    Attributes:
        name: As in `data.name`.
        label: What tables and figures call it: CIFAR-100, SYNTHETIC, the name of a data set of one's own; of a part of a
            set, how large it is.
        checksum: `md5:…` or `sha256:…` of the whole data set.
        class_names: A name for each label.
        train_images: uint8 (N, 3, 32, 32).
        train_labels: int64 (N,).
        evaluation_images: uint8 (M, 3, 32, 32).
        evaluation_labels: int64 (M,).
        evaluated_on: `test` or `validation`.
        mean: Of each channel of the whole training set, pixels in [0, 1].
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

    `validation` images are held out first, at random, as many of each class. `training_images` of a set that is not
    synthetic are then the first that are left in the order of its files, as many of each class. With `evaluate_on`
    "validation" CIFAR's test file is never opened.

    Raises:
        UserError: The data set is missing or damaged, or cannot be split so; the message names the key and the remedy.
    """
    on_validation = settings.evaluate_on == "validation"
    root = Path(settings.root)
    if settings.function is not None:
        images = custom.load(settings.function, root, settings.arguments)
    elif settings.name == "synthetic":
        images = synthetic.make(settings.training_images or 0, settings.test_images or 0)
    else:
        images = cifar.load(settings.name, root, download=settings.download, read_test=not on_validation)
    pixels, labels = np.asarray(images.train_images), np.asarray(images.train_labels)
    tested, test_labels = np.asarray(images.test_images), np.asarray(images.test_labels)
    held_out, kept = _split(labels, len(images.class_names), settings)
    if on_validation:
        tested, test_labels = pixels[held_out], labels[held_out]
    mean, std = _mean_and_std(settings.name, pixels)
    is_official = settings.name in cifar.ARCHIVES
    return Dataset(
        name=settings.name,
        label=settings.label,
        checksum=cifar.ARCHIVES[settings.name].checksum if is_official else checksum(images),
        class_names=tuple(images.class_names),
        train_images=torch.from_numpy(pixels if kept.all() else pixels[kept]),
        train_labels=torch.from_numpy(labels[kept]),
        evaluation_images=torch.from_numpy(tested),
        evaluation_labels=torch.from_numpy(test_labels),
        evaluated_on=settings.evaluate_on,
        mean=mean,
        std=std,
    )


def checksum(images: custom.Images) -> str:
    """SHA-256 over images and labels, the same on machines of either byte order."""
    digest = hashlib.sha256()
    for values in (images.train_images, images.train_labels, images.test_images, images.test_labels):
        array = np.asarray(values)
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return f"sha256:{digest.hexdigest()}"


def _mean_and_std(
    name: str, pixels: np.ndarray
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Of each channel, of pixels in [0, 1]: as `DATA_SETS` knows them, else measured on the training set."""
    facts = DATA_SETS.get(name, {})
    if "mean" not in facts:
        unit = pixels.astype(np.float64) / 255
        facts = {key: getattr(unit, key)(axis=(0, 2, 3)).tolist() for key in ("mean", "std")}
    (red, green, blue), (red_std, green_std, blue_std) = facts["mean"], facts["std"]
    return (red, green, blue), (red_std, green_std, blue_std)


def _split(labels: np.ndarray, classes: int, settings: DataSettings) -> tuple[np.ndarray, np.ndarray]:
    """Choose the images that are held out and those that are trained on, each bool (N,)."""
    part = None if settings.name == "synthetic" else settings.training_images
    for key, count in (("validation", settings.validation), ("training_images", part or 0)):
        if count % classes:
            raise UserError(f"data.{key}={count}: must be a multiple of the {classes} classes")
    generator = np.random.Generator(np.random.PCG64(settings.validation_seed))
    held_out, kept = np.zeros((2, len(labels)), dtype=bool)
    for label in range(classes):
        members = generator.permutation(np.flatnonzero(labels == label))
        drawn, left = np.split(members, [settings.validation // classes])
        if settings.validation and not len(left):
            raise UserError(
                f"data.validation={settings.validation}: leaves no training image of class {label}; hold out fewer"
            )
        wanted = len(left) if part is None else part // classes
        if wanted > len(left):
            raise UserError(
                f"data.training_images={part}: {wanted} of each class, but class {label} has {len(left)}; ask for fewer"
            )
        held_out[drawn] = True
        kept[np.sort(left)[:wanted]] = True
    return held_out, kept
