"""Which images a run trains on and which it is evaluated on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anchorloss.config.settings import DATA_SETS
from anchorloss.data import cifar, custom, synthetic
from anchorloss.data.arrays import Arrays
from anchorloss.data.cifar import ARCHIVES
from anchorloss.errors import UserError

# Of the full training set, pixels in [0, 1], over all pixels of a channel. CIFAR-100: measured on the official file
# (tests/data/test_cifar.py repeats it); CIFAR-10: the figures in common use.
MEAN_STD = {
    "cifar100": ((0.5070752, 0.4865489, 0.4409178), (0.2673343, 0.2564385, 0.2761505)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
}


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


def load(
    name: str,
    root: str | Path,
    *,
    download: bool = False,
    validation: int = 0,
    validation_seed: int = 0,
    evaluate_on: str = "test",
    training_images: int | None = None,
    test_images: int | None = None,
    function: str | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Dataset:
    """Load a data set.

    Args:
        name: `cifar100` or `cifar10`, read from `root`; `synthetic`; or, with `function`, what yours is called.
        root: folder or archive that holds the files.
        download: fetch the official archive if `root` does not hold it.
        validation: number of training images to hold out, the same number in each class.
        validation_seed: chooses which.
        evaluate_on: `test`, or `validation`: then CIFAR's test file is never opened.
        training_images: size of the synthetic training set.
        test_images: size of the synthetic test set.
        function: import path of a loader, called with `root` and `arguments`; see `anchorloss.data.custom`.
        arguments: further arguments of the loader.

    Raises:
        UserError: a key or file is wrong; the message names it and the remedy.
    """
    if function is None and name not in DATA_SETS:
        raise UserError(f"data.name={name}: must be one of {', '.join(DATA_SETS)}")
    if evaluate_on not in ("test", "validation"):
        raise UserError(f"data.evaluate_on={evaluate_on}: must be test or validation")
    on_validation = evaluate_on == "validation"
    if on_validation and validation == 0:
        raise UserError("data.evaluate_on=validation: needs held-out images: set data.validation=5000")
    if function is not None:
        whole = _from_arrays(name, custom.load(function, Path(root), arguments or {}))
    elif name == "synthetic":
        whole = _from_arrays(name, synthetic.make(training_images or 0, test_images or 0))
    else:
        whole = _cifar(name, Path(root), download, read_test=not on_validation)
    if validation == 0:
        return whole
    held_out = _held_out(whole.train_labels.numpy(), len(whole.class_names), validation, validation_seed)
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
    return _dataset(name, arrays, archive.checksum, *MEAN_STD[name])


def _from_arrays(name: str, arrays: Arrays) -> Dataset:
    pixels = arrays.train_images.astype(np.float64) / 255
    mean, std = (f(pixels, axis=(0, 2, 3)).tolist() for f in (np.mean, np.std))
    return _dataset(name, arrays, arrays.checksum, mean, std)


def _dataset(
    name: str, arrays: Arrays, checksum: str, mean: Sequence[float], std: Sequence[float]
) -> Dataset:
    return Dataset(
        name=name,
        label=DATA_SETS.get(name, name),
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
