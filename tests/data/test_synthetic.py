"""The synthetic set: always the same images, all classes, learnable, and not too easily."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from anchorloss.data.synthetic import make

# Another number means other images: every result on the synthetic set changes with it.
CHECKSUM = "sha256:435d74f23c2b98ed83426878fc8a1ca4be27268ed4660d8c26b47a88eeca9f24"


@pytest.fixture(scope="module")
def made():
    return make(10_000, 2_000)


def test_the_images_are_always_the_same(made):
    assert made.checksum == CHECKSUM


def test_another_process_with_another_hash_seed_makes_the_same():
    code = "from anchorloss.data.synthetic import make; print(make(300, 100).checksum)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert done.stdout.strip() == make(300, 100).checksum


def test_the_checksum_covers_images_and_labels(made):
    digest = hashlib.sha256()
    for images, labels in ((made.train_images, made.train_labels), (made.test_images, made.test_labels)):
        digest.update(images.tobytes())
        digest.update(labels.astype("<i8").tobytes())
    assert made.checksum == f"sha256:{digest.hexdigest()}"


def test_shapes_types_and_even_classes(made):
    for images, labels, size in (
        (made.train_images, made.train_labels, 10_000),
        (made.test_images, made.test_labels, 2_000),
    ):
        assert images.shape == (size, 3, 32, 32)
        assert images.dtype == np.uint8
        assert labels.dtype == np.int64
        assert np.bincount(labels).tolist() == [size // 100] * 100
    assert len(made.class_names) == len(set(made.class_names)) == 100


def test_no_image_stands_twice(made):
    everything = np.concatenate([made.train_images, made.test_images])
    assert len({image.tobytes() for image in everything}) == len(everything)


def test_it_is_made_in_seconds():
    start = time.process_time()
    make(10_000, 2_000)
    assert time.process_time() - start < 5


def test_uneven_sizes():
    made = make(150, 100)
    assert np.bincount(made.train_labels).tolist() == [2] * 50 + [1] * 50


def nearest_mean(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The class whose mean training image is nearest, for each test image."""
    train, test = (images.reshape(len(images), -1).astype(np.float32) for images in (train, test))
    means = np.stack([train[labels == label].mean(0) for label in range(100)])
    return (np.square(means).sum(1) - 2 * test @ means.T).argmin(1)


def test_classes_can_be_told_apart_and_are_confused_within_their_group(made):
    predicted = nearest_mean(made.train_images, made.train_labels, made.test_images)
    right = predicted == made.test_labels
    assert 0.1 < right.mean() < 0.9
    wrong = ~right
    same_group = predicted[wrong] // 5 == made.test_labels[wrong] // 5
    assert same_group.mean() > 2 * 4 / 99, "wrong answers lie in the right group more than by chance"


def test_a_flip_and_a_crop_leave_the_class_as_it_was(made):
    """The same classifier, built on the images as they are, does as well on flipped ones, and well on shifted ones."""
    train, labels = made.train_images, made.train_labels
    plain = (nearest_mean(train, labels, made.test_images) == made.test_labels).mean()
    flipped = (nearest_mean(train, labels, made.test_images[..., ::-1]) == made.test_labels).mean()
    assert abs(plain - flipped) < 0.05
    shifted = np.pad(made.test_images, ((0, 0), (0, 0), (4, 4), (4, 4)))[:, :, 2:34, 6:38]
    assert (nearest_mean(train, labels, shifted) == made.test_labels).mean() > 0.1, "ten times chance"
