"""Which images a run trains on and is evaluated on, from real files of a small archive."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from anchorloss.config.settings import DataSettings
from anchorloss.data import dataset
from anchorloss.data.cifar import CIFAR100
from anchorloss.errors import UserError
from tests import small_cifar
from tests.conftest import SMALL


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A root with the small archive, which takes CIFAR-100's place."""
    monkeypatch.setitem(dataset.ARCHIVES, "cifar100", small_cifar.write(tmp_path))
    return tmp_path


def load_cifar100(root: Path, **settings) -> dataset.Dataset:
    return dataset.load_dataset(DataSettings("cifar100", str(root), **settings))


def load_synthetic(**settings) -> dataset.Dataset:
    return dataset.load_dataset(DataSettings("synthetic", **settings))


def keys(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_the_whole_set(root):
    data = load_cifar100(root)
    assert (data.name, data.label, data.evaluated_on) == ("cifar100", "CIFAR-100", "test")
    for images, labels, expected in (
        (data.train_images, data.train_labels, small_cifar.batch(small_cifar.TRAIN, 0)),
        (data.evaluation_images, data.evaluation_labels, small_cifar.batch(small_cifar.TEST, 1)),
    ):
        assert images.dtype == torch.uint8
        assert images.is_contiguous()
        assert labels.dtype == torch.int64
        assert np.array_equal(images.numpy().reshape(len(images), 3072), expected["data"])
        assert labels.tolist() == expected["fine_labels"]
    assert len(data.class_names) == 100


def test_held_out_images_are_even_over_classes_and_leave_training(root):
    whole = load_cifar100(root)
    data = load_cifar100(root, validation=200, evaluate_on="validation")
    assert data.evaluated_on == "validation"
    assert torch.bincount(data.evaluation_labels).tolist() == [2] * 100
    assert torch.bincount(data.train_labels).tolist() == [4] * 100
    training, held_out = keys(data.train_images), keys(data.evaluation_images)
    assert not training & held_out
    assert training | held_out == keys(whole.train_images)
    by_image = {
        image.numpy().tobytes(): int(y)
        for image, y in zip(whole.train_images, whole.train_labels, strict=True)
    }
    for image, label in zip(data.evaluation_images, data.evaluation_labels, strict=True):
        assert by_image[image.numpy().tobytes()] == label


def test_held_out_images_depend_on_their_seed_alone(root):
    def held_out(**settings) -> set[bytes]:
        torch.manual_seed(len(settings))
        return keys(load_cifar100(root, validation=100, **settings).train_images)

    assert held_out() == held_out(evaluate_on="validation", validation_seed=0)
    assert held_out(validation_seed=1) != held_out()


def test_evaluated_on_test_the_rest_trains_and_the_test_set_is_whole(root):
    data = load_cifar100(root, validation=100, evaluate_on="test")
    assert (len(data.train_labels), len(data.evaluation_labels)) == (500, small_cifar.TEST)
    assert data.evaluated_on == "test"


def test_evaluated_on_validation_the_test_file_is_not_needed(root, tmp_path):
    (root / CIFAR100.folder / "test").unlink()
    assert len(load_cifar100(root, validation=100, evaluate_on="validation").train_labels) == 500
    packed = small_cifar.pack(root, tmp_path / "packed.tar.gz")
    assert len(load_cifar100(packed, validation=100, evaluate_on="validation").train_labels) == 500
    with pytest.raises(UserError, match="test: missing"):
        load_cifar100(root, validation=100)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation": 150}, r"data\.validation=150: .*multiple of the 100 classes"),
        ({"validation": 600}, r"data\.validation=600: .*below 600"),
        ({"validation": 60_000}, r"data\.validation=60000"),
    ],
)
def test_wrong_settings_are_named(settings, message, root):
    with pytest.raises(UserError, match=message):
        load_cifar100(root, **settings)


def test_holding_out_every_image_of_a_class_is_refused(tmp_path, monkeypatch):
    uneven = small_cifar.batch(600, 0)
    uneven["fine_labels"] = [0] + [1 + k % 99 for k in range(599)]
    monkeypatch.setitem(dataset.ARCHIVES, "cifar100", small_cifar.write(tmp_path, train=uneven))
    with pytest.raises(UserError, match=r"data\.validation=100: leaves no training image of class 0"):
        load_cifar100(tmp_path, validation=100)


def test_download_is_tried_only_when_nothing_is_there(root, tmp_path, monkeypatch):
    """An address nobody listens at: reaching it would fail."""
    archive = replace(dataset.ARCHIVES["cifar100"], url="http://127.0.0.1:9/none.tar.gz")
    monkeypatch.setitem(dataset.ARCHIVES, "cifar100", archive)
    assert len(load_cifar100(root, download=True).train_labels) == small_cifar.TRAIN
    with pytest.raises(UserError, match=r"data\.root="):
        load_cifar100(tmp_path / "elsewhere", download=True)
    assert not (tmp_path / "elsewhere").exists()


def test_the_synthetic_set_is_labelled_and_measured():
    data = load_synthetic(training_images=400, test_images=200, validation=100)
    assert (data.name, data.label) == ("synthetic", "SYNTHETIC")
    assert (len(data.train_labels), len(data.evaluation_labels)) == (300, 200)
    whole = load_synthetic(training_images=400, test_images=200)
    pixels = whole.train_images.double() / 255
    assert data.mean == whole.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-9)
    assert data.std == whole.std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), abs=1e-9)
    assert data.checksum == whole.checksum
    assert data.checksum.startswith("sha256:")


@pytest.mark.parametrize("trouble", ["a file that is not the official one", "a truncated archive"])
def test_training_refuses_a_damaged_set_and_writes_nothing(trouble, tmp_path, train):
    root = tmp_path / "my data"
    small_cifar.write(root)
    if trouble == "a truncated archive":
        root = small_cifar.pack(root, root / "packed.tar.gz")
        root.write_bytes(root.read_bytes()[:100_000])
    small = [value for value in SMALL if not value.startswith("data")]
    done = train(*small, "data=cifar100", f"data.root='{root}'")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "my data" in done.stderr
    assert "make data" in done.stderr
    assert not (tmp_path / "results").exists()


def test_the_official_set_with_5000_held_out(cifar_root):
    data = load_cifar100(cifar_root, validation=5000, evaluate_on="validation")
    assert torch.bincount(data.train_labels).tolist() == [450] * 100
    assert torch.bincount(data.evaluation_labels).tolist() == [50] * 100
