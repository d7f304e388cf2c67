"""What the report measures, against computations written another way."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from anchorloss.config.settings import DATA_SETS
from anchorloss.data.class_names import class_name
from anchorloss.report.calibration import reliability
from anchorloss.report.confusion import class_accuracy, confused_pairs, target_ranks
from anchorloss.runs.folder import Predictions
from anchorloss.runs.record import Data
from tests.fake_runs import predictions


def answers(target, predicted, rank=None, confidence=None) -> Predictions:
    n = len(target)
    return Predictions(
        np.array(target, np.uint8),
        np.array(predicted, np.uint8),
        np.array(rank if rank is not None else [0] * n, np.uint8),
        np.array(confidence if confidence is not None else [0.5] * n, np.float16),
    )


@pytest.fixture
def drawn() -> Predictions:
    return Predictions(**predictions("bce", 3, 20, 600))


def test_accuracy_by_class_counts_each_class_alone(drawn):
    found = class_accuracy(drawn, 21)
    for index in range(20):
        own = [p == t for t, p in zip(drawn.target, drawn.predicted, strict=True) if t == index]
        assert found[index] == pytest.approx(100 * sum(own) / len(own))
    assert np.isnan(found[20])


def test_confused_pairs_count_both_directions_and_no_right_answer():
    found = confused_pairs({"bce": {0: answers([0, 0, 1, 2, 2], [1, 0, 0, 2, 1])}}, 3, most=5)
    assert [(p.first, p.second, p.mistaken["bce"].mean) for p in found] == [(0, 1, 2.0), (1, 2, 1.0)]
    assert found[0].mistaken["bce"].std is None


def test_confused_pairs_are_chosen_by_the_mean_over_losses():
    """One loss with many seeds does not outvote another: seeds are averaged first."""
    first = answers([0] * 4, [1, 1, 1, 2])
    second = answers([0] * 4, [2, 2, 2, 2])
    (found,) = confused_pairs({"a": {0: first, 1: first, 2: first}, "b": {0: second}}, 3, most=1)
    assert (found.first, found.second) == (0, 2)
    assert (found.mistaken["a"].mean, found.mistaken["b"].mean) == (1.0, 4.0)


def test_ranks_add_up_and_agree_with_top1_and_top5(drawn):
    found = target_ranks(drawn)
    assert found.sum() == pytest.approx(100)
    assert found[0] == pytest.approx(100 * np.mean(drawn.target_rank == 0))
    assert found[:3].sum() == pytest.approx(100 * np.mean(drawn.target_rank < 5))


def test_calibration_error_by_hand():
    # Bin (0.4, 0.4667]: score 0.4375, none right. Bin (0.8667, 0.9333]: score 0.875, three of four right.
    found = reliability(
        answers([1, 1, 1, 1, 1], [0, 1, 1, 1, 0], confidence=[0.4375, 0.875, 0.875, 0.875, 0.875])
    )
    assert found.error == pytest.approx((1 * 0.4375 + 4 * abs(0.75 - 0.875)) / 5)
    assert found.images.sum() == 5


def test_calibration_error_agrees_with_a_loop_over_bins(drawn):
    total, n = 0.0, len(drawn.target)
    score = [float(c) for c in drawn.confidence]
    for low in range(15):
        inside = [i for i in range(n) if low / 15 < score[i] <= (low + 1) / 15]
        if inside:
            right = sum(drawn.predicted[i] == drawn.target[i] for i in inside) / len(inside)
            total += len(inside) / n * abs(right - sum(score[i] for i in inside) / len(inside))
    assert reliability(drawn).error == pytest.approx(total)


def test_scores_of_zero_and_one_have_a_bin():
    found = reliability(answers([0, 0], [1, 0], confidence=[0.0, 1.0]))
    assert (found.images[0], found.images[-1], found.error) == (1, 1, 0.0)


def data(name: str, class_names: list[str] | None = None) -> Data:
    """What a record says of its data set."""
    return Data(
        name=name,
        label="CIFAR-100",
        checksum="md5:0",
        training_images=100,
        evaluation_images=100,
        class_names=class_names,
    )


def test_class_names_fall_back_to_numbers():
    assert class_name(data("cifar100"), 1) == "aquarium fish"
    assert class_name(data("cifar10"), 9) == "truck"
    assert class_name(data("synthetic"), 4) == "class 4"
    assert class_name(data("digits", ["zero", "one"]), 1) == "one"
    assert class_name(None, 4) == "class 4"


def test_class_names_are_those_of_the_official_archive(cifar_root):
    with (cifar_root / "cifar-100-python" / "meta").open("rb") as file:
        assert (
            DATA_SETS["cifar100"]["class_names"] == pickle.load(file, encoding="latin1")["fine_label_names"]
        )
