"""A data set of one's own, brought into the form that training takes."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from anchorloss.data.custom import Images
from anchorloss.data.dataset import load_dataset
from anchorloss.errors import UserError
from tests.conftest import SMALL
from tests.in_process import settings
from tests.settings import data_settings

LABELS = [0, 1, 2, 0, 1, 2]
GREY = np.random.default_rng(0).integers(0, 256, (6, 28, 27))
GOOD = Images(GREY, LABELS, GREY[:3], LABELS[:3], ["ant", "bee", "cow"])


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load the data set that a loader returns."""
    module = type(sys)("own_data")
    monkeypatch.setitem(sys.modules, "own_data", module)

    def from_images(images, **settings):
        module.load = lambda root: images
        named = data_settings("insects", root=str(tmp_path), function="own_data.load")
        # Fewer images than a command may ask for.
        return load_dataset(named.model_copy(update=settings))

    return from_images


def test_grey_images_are_padded_and_get_three_channels(load):
    data = load(GOOD)
    assert data.train_images.shape == (6, 3, 32, 32)
    assert data.train_images.dtype == torch.uint8
    assert np.array_equal(data.train_images[:, 1, 2:30, 2:29], GREY)
    assert int(data.train_images.sum()) == 3 * GREY.sum()
    assert torch.equal(data.train_images[:, 0], data.train_images[:, 2])
    assert (data.name, data.label, data.class_names) == ("insects", "insects", ("ant", "bee", "cow"))
    assert data.train_labels.tolist() == LABELS
    pixels = data.train_images.double() / 255
    assert data.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist())
    assert data.std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist())


def test_colour_tensors_pass_as_they_are(load):
    images = torch.randint(256, (6, 3, 32, 32), dtype=torch.uint8)
    data = load(Images(images, torch.tensor(LABELS), images[:2], torch.tensor(LABELS[:2]), ["a", "b", "c"]))
    assert torch.equal(data.train_images, images)
    assert len(data.evaluation_labels) == 2


def test_the_checksum_is_of_images_and_labels(load):
    first = load(GOOD).checksum
    assert first == load(replace(GOOD, train_images=GREY.astype(np.uint8))).checksum
    other = GREY.copy()
    other[0, 0, 0] = (other[0, 0, 0] + 1) % 256
    changed = (replace(GOOD, train_images=other), replace(GOOD, test_labels=[0, 1, 1]))
    assert len({first, *(load(images).checksum for images in changed)}) == 3


def test_images_are_held_out_class_by_class(load):
    data = load(GOOD, validation=3, evaluate_on="validation", training_images=3)
    assert sorted(data.evaluation_labels.tolist()) == sorted(data.train_labels.tolist()) == [0, 1, 2]
    assert data.label == "insects (3 of its training images)"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (replace(GOOD, train_images=GREY[:, :, 0]), r"train_images has shape \(6, 28\)"),
        (replace(GOOD, train_images=np.zeros((6, 3, 33, 32), int)), r"\(6, 3, 33, 32\)"),
        (replace(GOOD, train_images=GREY / 255), "whole numbers from 0 to 255; found float64"),
        (
            replace(GOOD, train_images=GREY + 1000),
            "train_images must be whole numbers from 0 to 255; found 1000 to",
        ),
        (replace(GOOD, train_images=np.full((6, 8, 8), 7)), "every pixel of a channel is the same"),
        (replace(GOOD, test_images=np.full((3, 8, 8), 7)), "every pixel is the same"),
        (
            replace(GOOD, train_images=np.stack([GREY, GREY, 0 * GREY], 1)),
            "every pixel of a channel is the same",
        ),
        (replace(GOOD, class_names=None), "class_names"),
        (replace(GOOD, train_labels=LABELS[:5]), r"train_labels has shape \(5,\)"),
        (replace(GOOD, test_labels=[0, 1, 3]), "test_labels must be whole numbers from 0 to 2; found 0 to 3"),
        (replace(GOOD, test_images=GREY[:0], test_labels=[]), "test_labels has shape"),
        (replace(GOOD, class_names=["ant", "ant", "bee"]), "2 different names"),
        (replace(GOOD, class_names=["ant", "bee", "c\nw"]), "printable"),
        ("images", "must return anchorloss.data.custom.Images, not str"),
    ],
)
def test_what_a_loader_returns_is_checked(images, message, load):
    with pytest.raises(UserError, match=rf"data\.function=own_data\.load: .*{message}"):
        load(images)


@pytest.mark.parametrize("name", ["cifar100", "CIFAR10", "synthetic", "Synthetic"])
def test_the_name_of_another_data_set_is_refused(name):
    """Its figures would be taken for those of the official set."""
    with pytest.raises(UserError, match=rf"data\.name={name}: is taken"):
        settings(
            *(value for value in SMALL if not value.startswith("data")),
            f"data.name={name}",
            "data.function=own.load",
        )
