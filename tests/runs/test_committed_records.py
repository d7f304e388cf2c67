"""Every committed record says what its predictions and the official labels say."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from anchorloss.data.dataset import load_dataset
from anchorloss.runs.folder import Record, read_predictions, read_record, verify_files
from tests.conftest import ROOT
from tests.settings import data_settings

FOLDERS = sorted(path.parent for path in (ROOT / "results" / "runs").glob("*/*/record.json"))


@cache
def labels_of(name: str, root: str, sizes: tuple[int | None, int | None]) -> np.ndarray:
    """The labels of a test set, in its order."""
    training_images, test_images = sizes
    settings = data_settings(
        name, root=root or "data", training_images=training_images, test_images=test_images
    )
    return load_dataset(settings).evaluation_labels.numpy()


def labels(record: Record) -> np.ndarray | None:
    """The labels that the record was evaluated on; None where they are not at hand, or were held out of training."""
    root = os.environ.get("CIFAR_ROOT", "")
    if record.evaluated_on != "test" or not (
        record.data.name == "synthetic" or (Path(root).is_dir() and root)
    ):
        return None
    data = record.identity["data"]
    return labels_of(record.data.name, root, (data["training_images"], data["test_images"]))


def test_there_are_records():
    assert len(FOLDERS) > 90


@pytest.mark.parametrize("experiment", sorted({folder.parent.name for folder in FOLDERS}))
def test_accuracies_are_those_of_the_predictions(experiment):
    for folder in FOLDERS:
        if folder.parent.name != experiment:
            continue
        record = read_record(folder)
        assert record is not None
        verify_files(folder, record)
        if record.status != "finished":
            continue
        found = read_predictions(folder)
        target = labels(record)
        if target is None:
            target = found.target
        assert len(target) == record.data.evaluation_images, folder
        assert np.array_equal(found.target, target), folder
        right = 100 * np.count_nonzero(found.predicted == target) / len(target)
        among_five = 100 * np.count_nonzero(found.target_rank < 5) / len(target)
        assert right == pytest.approx(record.top1, abs=1e-9), folder
        assert among_five == pytest.approx(record.top5, abs=1e-9), folder
        assert np.array_equal(found.target_rank == 0, found.predicted == target), folder
