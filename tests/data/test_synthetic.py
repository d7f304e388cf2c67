"""The synthetic set: always the same images, all classes, learnable, and not too easily."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from anchorloss.data.dataset import checksum, load_dataset
from anchorloss.data.synthetic import make
from tests.settings import data_settings


@pytest.fixture(scope="module")
def made():
    return make(10_000, 2_000)


def test_the_images_are_always_the_same(made):
    """With other ones, every result on the synthetic set changes."""
    assert checksum(made) == "sha256:435d74f23c2b98ed83426878fc8a1ca4be27268ed4660d8c26b47a88eeca9f24"
    code = "from anchorloss.data.dataset import checksum; from anchorloss.data.synthetic import make; "
    again = subprocess.run(
        [sys.executable, "-c", code + "print(checksum(make(350, 100)))"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert again.stdout.strip() == checksum(make(350, 100))


def test_shapes_types_and_even_classes(made):
    for images, labels, size in (
        (made.train_images, made.train_labels, 10_000),
        (made.test_images, made.test_labels, 2_000),
    ):
        assert images.shape == (size, 3, 32, 32)
        assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
        assert np.bincount(labels).tolist() == [size // 100] * 100
    assert len(made.class_names) == len(set(made.class_names)) == 100
    everything = np.concatenate([made.train_images, made.test_images])
    assert len({image.tobytes() for image in everything}) == len(everything), "no image stands twice"


def test_it_is_labelled_and_measured():
    settings = data_settings("synthetic", training_images=350, test_images=200)
    whole = load_dataset(settings)
    assert (whole.name, whole.label, len(whole.evaluation_labels)) == ("synthetic", "SYNTHETIC", 200)
    assert whole.train_labels.bincount().tolist() == [4] * 50 + [3] * 50
    pixels = whole.train_images.double() / 255
    assert whole.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-9)
    assert whole.std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), abs=1e-9)
    part = load_dataset(data_settings("synthetic", training_images=350, test_images=200, validation=100))
    assert (len(part.train_labels), part.mean, part.checksum) == (250, whole.mean, whole.checksum)


def nearest_mean(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The class whose mean training image is nearest, for each test image."""
    train, test = (images.reshape(len(images), -1).astype(np.float32) for images in (train, test))
    means = np.stack([train[labels == label].mean(0) for label in range(100)])
    return (np.square(means).sum(1) - 2 * test @ means.T).argmin(1)


def test_classes_can_be_told_apart_and_are_confused_within_their_group(made):
    """A flip or a crop leaves the class as it was: the same classifier does as well on flipped images."""
    train, labels = made.train_images, made.train_labels
    predicted = nearest_mean(train, labels, made.test_images)
    right = predicted == made.test_labels
    assert 0.1 < right.mean() < 0.9
    same_group = predicted[~right] // 5 == made.test_labels[~right] // 5
    assert same_group.mean() > 2 * 4 / 99, "wrong answers lie in the right group more than by chance"
    flipped = nearest_mean(train, labels, made.test_images[..., ::-1]) == made.test_labels
    assert abs(right.mean() - flipped.mean()) < 0.05
    shifted = np.pad(made.test_images, ((0, 0), (0, 0), (4, 4), (4, 4)))[:, :, 2:34, 6:38]
    assert (nearest_mean(train, labels, shifted) == made.test_labels).mean() > 0.1, "ten times chance"
