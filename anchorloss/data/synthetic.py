"""A set of 100 classes of 32×32 RGB images, generated in seconds. Every result on it is labelled SYNTHETIC.

Twenty groups have a coarse coloured pattern each; the five classes of a group add a fine pattern of their own, so that
classes of one group are easily confused. An image shows its class's pattern shifted by up to four pixels, mirrored or
not, in varying contrast, under the pattern of another class, a grey patch and noise. So crops and flips destroy no
class, chance is 1 %, and a small network stays well below 100 %. All arithmetic is on integers: the same images
everywhere.
"""

from __future__ import annotations

import numpy as np

from anchorloss.config.settings import DATA_SETS
from anchorloss.data.custom import Images

CLASSES, GROUPS = DATA_SETS["synthetic"]["classes"], 20
SEED = 20191027
_SIDE = 40
_CHUNK = 500


def make(training_images: int, test_images: int) -> Images:
    """Generate the set. Sets of different sizes are different draws from the same classes.

    Args:
        training_images: number of training images; labels cycle through the classes.
        test_images: number of test images.
    """
    patterns = _patterns(np.random.Generator(np.random.PCG64(SEED)))
    train_images, train_labels = _split(patterns, 0, training_images)
    tested_images, test_labels = _split(patterns, 1, test_images)
    names = tuple(f"group {label // (CLASSES // GROUPS)} class {label}" for label in range(CLASSES))
    return Images(train_images, train_labels, tested_images, test_labels, names)


def _split(patterns: np.ndarray, purpose: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """`size` images and labels; another purpose (training, test) is another draw."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([SEED, purpose, size])))
    labels = np.arange(size, dtype=np.int64) % CLASSES
    chunks = [_draw(patterns, labels[first : first + _CHUNK], generator) for first in range(0, size, _CHUNK)]
    return np.concatenate(chunks), labels


def _patterns(generator: np.random.Generator) -> np.ndarray:
    """One pattern a class, int64 (100, 3, 40, 40), about −128 to 127: a group's, coarse, and its own, finer."""
    coarse = _enlarge(generator.integers(-128, 128, (GROUPS, 3, 6, 6)), 8)
    fine = _enlarge(generator.integers(-128, 128, (CLASSES, 3, 11, 11)), 4)
    own = fine[:, :, :_SIDE, :_SIDE]
    groups = np.repeat(coarse[:, :, :_SIDE, :_SIDE], CLASSES // GROUPS, axis=0)
    return (4 * groups + 4 * own) // 8


def _enlarge(grid: np.ndarray, factor: int) -> np.ndarray:
    """Bilinear enlargement of the last two axes, in integers."""
    for axis in (-2, -1):
        lower = np.repeat(np.take(grid, range(grid.shape[axis] - 1), axis), factor, axis)
        upper = np.repeat(np.take(grid, range(1, grid.shape[axis]), axis), factor, axis)
        step = np.arange(lower.shape[axis]) % factor
        weight = step if axis == -1 else step[:, None]
        grid = (lower * (factor - weight) + upper * weight) // factor
    return grid


def _draw(patterns: np.ndarray, labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Images of these labels, uint8 (N, 3, 32, 32)."""
    size = len(labels)
    others = generator.integers(0, CLASSES, size)
    own, clutter = (_view(patterns, shown, generator) for shown in (labels, others))
    contrast = generator.integers(100, 220, (size, 1, 1, 1))
    hidden = generator.integers(0, 100, (size, 1, 1, 1))
    brightness = generator.integers(-30, 31, (size, 3, 1, 1))
    noise = generator.integers(-40, 41, (size, 3, 32, 32)) + generator.integers(-40, 41, (size, 3, 32, 32))
    pixels = 128 + brightness + (own * contrast + clutter * hidden + 128 * noise) // 128
    rows, columns = generator.integers(0, 22, (2, size, 1))
    along = np.arange(32)
    patch = ((along >= rows) & (along < rows + 10))[:, :, None] & (
        (along >= columns) & (along < columns + 10)
    )[:, None]
    return np.where(patch[:, None], 128, pixels).clip(0, 255).astype(np.uint8)


def _view(patterns: np.ndarray, shown: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The patterns of the classes `shown`, each shifted by up to four pixels and mirrored or not: (N, 3, 32, 32)."""
    rows, columns = generator.integers(0, 9, (2, len(shown), 1)) + np.arange(32)
    mirrored = generator.integers(0, 2, (len(shown), 1)) == 1
    columns = np.where(mirrored, columns[:, ::-1], columns)
    return patterns[shown[:, None, None], :, rows[:, :, None], columns[:, None, :]].transpose(0, 3, 1, 2)
