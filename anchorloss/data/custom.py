"""Data sets of one's own: what a loader returns, checked and converted for training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from anchorloss.config.own_code import check_arguments, import_function
from anchorloss.data.augmentation import SIZE
from anchorloss.errors import UserError


@dataclass(frozen=True)
class Images:
    """What a loader returns.

    Args:
        train_images: pixels 0 to 255, integers, as arrays or tensors: grey (N, H, W) or (N, 1, H, W), or RGB
            (N, 3, H, W); at most 32 high and wide. Smaller images get a black border, grey ones three equal channels.
        train_labels: classes 0 to C - 1, (N,).
        test_images: the same for evaluation.
        test_labels: the same for evaluation.
        class_names: a name for each of the C classes; 2 to 256.
    """

    train_images: ArrayLike
    train_labels: ArrayLike
    test_images: ArrayLike
    test_labels: ArrayLike
    class_names: Sequence[str]


def load(function: str, root: Path, arguments: Mapping[str, Any]) -> Images:
    """Call the loader at the import path `function` with `root` and `arguments`.

    Returns:
        Its images as uint8 (N, 3, 32, 32), and its labels as int64 (N,).

    Raises:
        UserError: the loader cannot be imported, fails, or returns something else than `Images` of the right form.
    """
    where = f"data.function={function}"
    loader = import_function("data.function", function)
    check_arguments("data.arguments", function, loader, arguments, own=("root",))
    try:
        images = loader(root, **arguments)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{where}: fails with root={root}, {dict(arguments)}: {error}") from error
    if not isinstance(images, Images):
        raise UserError(f"{where}: must return anchorloss.data.custom.Images, not {type(images).__name__}")
    try:
        names = _class_names(images.class_names)
        train = _split("train", images.train_images, images.train_labels, len(names))
        test = _split("test", images.test_images, images.test_labels, len(names))
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {error}") from None
    return Images(*train, *test, names)


def _class_names(given: Sequence[str]) -> tuple[str, ...]:
    try:
        names = tuple(map(str, given))
    except TypeError:
        raise ValueError("class_names: must be a list of names") from None
    if not 2 <= len(names) <= 256 or len(set(names)) < len(names):
        raise ValueError(f"class_names has {len(set(names))} different names; 2 to 256 are needed, each once")
    if not all(name.isprintable() and 0 < len(name) <= 80 for name in names):
        raise ValueError("class_names: a name is 1 to 80 printable characters")
    return names


def _split(split: str, images: ArrayLike, labels: ArrayLike, classes: int) -> tuple[np.ndarray, np.ndarray]:
    pixels, targets = np.asarray(images), np.asarray(labels)
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or max(pixels.shape[2:]) > SIZE:
        raise ValueError(
            f"{split}_images has shape {np.shape(images)}; must be (N, H, W), (N, 1, H, W) or (N, 3, H, W) with H and W "
            f"at most {SIZE}"
        )
    if len(pixels) == 0 or targets.shape != (len(pixels),):
        raise ValueError(
            f"{split}_labels has shape {targets.shape}; needs one label for each of {len(pixels)} images"
        )
    for name, values, limit in (("images", pixels, 256), ("labels", targets, classes)):
        found = f"{values.min()} to {values.max()}" if values.dtype.kind in "iu" else values.dtype
        if values.dtype.kind not in "iu" or values.min() < 0 or values.max() >= limit:
            raise ValueError(f"{split}_{name} must be whole numbers from 0 to {limit - 1}; found {found}")
    # Training images are divided by the spread of each channel.
    axes = (0, 2, 3) if split == "train" else None
    if np.any(pixels.min(axes) == pixels.max(axes)):
        raise ValueError(f"{split}_images: every pixel{' of a channel' if axes else ''} is the same")
    before = [(SIZE - side) // 2 for side in pixels.shape[2:]]
    padded = np.zeros((len(pixels), 3, SIZE, SIZE), np.uint8)
    rows, columns = (slice(first, first + side) for first, side in zip(before, pixels.shape[2:], strict=True))
    padded[:, :, rows, columns] = pixels
    return padded, targets.astype(np.int64)
