"""Which images a run trains on and is evaluated on, from real files of a small archive."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from anchorloss.data import cifar
from anchorloss.data.dataset import Dataset, load_dataset
from anchorloss.errors import UserError
from tests import small_cifar
from tests.conftest import SMALL
from tests.settings import data_settings


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A root with the small archive, which takes CIFAR-100's place."""
    monkeypatch.setitem(cifar.ARCHIVES, "cifar100", small_cifar.write(tmp_path))
    return tmp_path


def load_cifar100(root: Path, **settings) -> Dataset:
    return load_dataset(data_settings("cifar100", root=str(root), **settings))


def keys(images: torch.Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in images]


def test_the_whole_set(root):
    data = load_cifar100(root)
    assert (data.name, data.label, data.evaluated_on) == ("cifar100", "CIFAR-100", "test")
    for images, labels, expected in (
        (data.train_images, data.train_labels, small_cifar.batch(small_cifar.TRAIN, 0)),
        (data.evaluation_images, data.evaluation_labels, small_cifar.batch(small_cifar.TEST, 1)),
    ):
        assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
        assert images.is_contiguous()
        assert np.array_equal(images.numpy().reshape(len(images), 3072), expected["data"])
        assert labels.tolist() == expected["fine_labels"]
    assert data.class_names[1] == "aquarium_fish"


def test_held_out_images_are_even_over_classes_and_leave_training(root):
    whole = load_cifar100(root)
    data = load_cifar100(root, validation=200, evaluate_on="validation")
    assert data.evaluated_on == "validation"
    assert torch.bincount(data.evaluation_labels).tolist() == [2] * 100
    assert torch.bincount(data.train_labels).tolist() == [4] * 100
    training, held_out = keys(data.train_images), keys(data.evaluation_images)
    assert {*training, *held_out} == {*keys(whole.train_images)}
    assert not {*training} & {*held_out}
    by_image = dict(zip(keys(whole.train_images), whole.train_labels.tolist(), strict=True))
    assert [by_image[image] for image in held_out] == data.evaluation_labels.tolist()
    assert [by_image[image] for image in training] == data.train_labels.tolist()


def test_held_out_images_depend_on_their_seed_alone(root):
    def left(**settings) -> list[bytes]:
        torch.manual_seed(len(settings))
        return keys(load_cifar100(root, validation=100, **settings).train_images)

    assert left() == left(evaluate_on="validation", validation_seed=0)
    assert left(validation_seed=1) != left()
    assert len(load_cifar100(root, validation=100).evaluation_labels) == small_cifar.TEST


def test_a_part_is_the_first_of_each_class_after_the_held_out_images(root):
    """300 of 600 images, of which 100 are held out: the first three of each class's other five, in the files' order."""
    rest = load_cifar100(root, validation=100)
    part = load_cifar100(root, validation=100, training_images=300)
    left = dict.fromkeys(range(100), 3)
    expected = []
    for index, label in enumerate(rest.train_labels.tolist()):
        if left[label]:
            left[label] -= 1
            expected.append(index)
    assert torch.equal(part.train_images, rest.train_images[expected])
    assert torch.equal(part.train_labels, rest.train_labels[expected])
    assert torch.equal(part.evaluation_images, rest.evaluation_images)
    assert part.label == "CIFAR-100 (300 of its training images)"
    assert (part.mean, part.std, part.checksum) == (rest.mean, rest.std, rest.checksum)


def test_evaluated_on_validation_the_test_file_is_not_needed(root, tmp_path):
    (root / small_cifar.CIFAR100.folder / "test").unlink()
    packed = small_cifar.pack(root, tmp_path / "packed.tar.gz")
    for place in (root, packed):
        assert len(load_cifar100(place, validation=100, evaluate_on="validation").train_labels) == 500
        with pytest.raises(UserError, match="test: missing"):
            load_cifar100(place, validation=100)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation": 150}, r"data\.validation=150: must be a multiple of the 100 classes"),
        ({"validation": 600}, r"data\.validation=600: leaves no training image of class 0"),
        ({"validation": 60_000}, r"data\.validation=60000: leaves no"),
        ({"training_images": 250}, r"data\.training_images=250: must be a multiple of the 100 classes"),
        ({"training_images": 600, "validation": 100}, "6 of each class, but class 0 has 5; ask for fewer"),
    ],
)
def test_wrong_settings_are_named(settings, message, root):
    with pytest.raises(UserError, match=message):
        load_cifar100(root, **settings)


def test_download_is_tried_only_when_nothing_is_there(root, tmp_path, monkeypatch):
    """An address nobody listens at: reaching it would fail."""
    archive = replace(cifar.ARCHIVES["cifar100"], url="http://127.0.0.1:9/none.tar.gz")
    monkeypatch.setitem(cifar.ARCHIVES, "cifar100", archive)
    assert len(load_cifar100(root, download=True).train_labels) == small_cifar.TRAIN
    with pytest.raises(UserError, match=r"fetch http://127.0.0.1:9.*data\.root="):
        load_cifar100(tmp_path / "elsewhere", download=True)
    assert not (tmp_path / "elsewhere").exists()


def test_training_refuses_a_damaged_set_and_writes_nothing(tmp_path, train):
    small_cifar.write(tmp_path / "my data")
    small = [value for value in SMALL if not value.startswith("data")]
    done = train(*small, "data=cifar100", f"data.root='{tmp_path / 'my data'}'", "data.training_images=200")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "my data/cifar-100-python/train: is not the official file" in done.stderr
    assert not (tmp_path / "results").exists()


def test_the_official_set_with_5000_held_out(cifar_root):
    data = load_cifar100(cifar_root, validation=5000, evaluate_on="validation", training_images=2000)
    assert torch.bincount(data.train_labels).tolist() == [20] * 100
    assert torch.bincount(data.evaluation_labels).tolist() == [50] * 100
