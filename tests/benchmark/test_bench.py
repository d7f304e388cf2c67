"""The benchmark: both loops train, what is called a textbook's is one, and a ratio needs three rounds."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import bench
import bench_loss
import pytest
import torch
from PIL import Image

from anchorloss.data import augmentation
from anchorloss.loss import ANCHORS, anchor_loss

CPU = torch.device("cpu")


def test_the_textbook_draws_crops_and_flips_of_the_padded_image():
    pixels = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    places = [(row, column, flip) for row in range(9) for column in range(9) for flip in (False, True)]
    rows, columns, flips = (torch.tensor(values) for values in zip(*places, strict=True))
    windows = augmentation.pad_images(pixels)
    crops = augmentation.augment(windows, torch.zeros(len(places), dtype=torch.int64), rows, columns, flips)
    possible = augmentation.normalize(crops, bench.MEAN, bench.STD)
    torch.manual_seed(0)
    image = Image.fromarray(pixels[0].permute(1, 2, 0).contiguous().numpy())
    drawn, labels = bench.augmented_batch([(image, 7)] * 20)
    assert labels.tolist() == [7] * 20
    same = (possible - drawn[:, None]).abs().amax((2, 3, 4)) < 1e-4
    assert same.sum(1).eq(1).all()
    assert len(set(same.nonzero()[:, 1].tolist())) > 10


def test_the_textbook_trains(monkeypatch):
    """Noise is learnt by heart: the loss falls, so gradient and update are there."""
    monkeypatch.setattr(bench, "BATCH", 8)
    torch.manual_seed(0)
    step = bench.textbook(bench.Loop("textbook", "resnet8", CPU, workers=1, images=16))
    losses = [step() for _ in range(24)]
    assert sum(losses[-2:]) < 0.9 * sum(losses[:2])


def test_runs_at_once_compute_what_each_computes_alone(monkeypatch):
    monkeypatch.setattr(bench, "BATCH", 16)
    torch.set_num_threads(1)

    def trained(runs: int):
        torch.manual_seed(0)
        step = bench.ours(bench.Loop("ours", "resnet8", CPU, runs=runs, images=72))
        return [step() for _ in range(6)][-1]

    (alone,), (first, second) = trained(1), trained(2)
    # Of five batches an epoch, the last of which is not full.
    assert (first.epoch, first.step_in_epoch) == (2, 2)
    ours, expected, others = (list(each.network.parameters()) for each in (first, alone, second))
    assert all(map(torch.equal, ours, expected))
    assert not torch.equal(ours[0], others[0])


@pytest.mark.parametrize("rounds", [2, 3])
def test_a_ratio_is_that_of_a_round_and_needs_three(rounds, monkeypatch, capsys):
    """The n-th turn takes 100 n images a second, twice that for ours; a compiled loop does not run."""
    turns: Counter = Counter()

    def images_per_second(loop: bench.Loop, seconds: float) -> float:
        if loop.compile:
            raise RuntimeError("no compiler")
        turns[loop] += 1
        return 100.0 * turns[loop] * (1 if loop.workers else 2)

    monkeypatch.setattr(bench, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(1))
    monkeypatch.setattr(bench, "images_per_second", images_per_second)
    ours = bench.Loop("ours", "resnet8", CPU)
    loops = [replace(ours, name="textbook", workers=1), ours, replace(ours, name="c", compile=True)]
    table = bench.measure(loops, rounds)
    assert table["loop"].tolist() == ["textbook", "ours", "c"]
    assert table["images_per_second_median"].tolist()[:2] == [50 * (rounds + 1), 100 * (rounds + 1)]
    assert table["images_per_second_max"].tolist()[:2] == [100 * rounds, 200 * rounds]
    assert table["images_per_second_median"].isna().tolist() == [False, False, True]
    assert "no compiler" in capsys.readouterr().err
    assert ("x_textbook_median" in table) == (rounds == 3)
    if rounds == 3:
        assert table["x_textbook_min"].tolist()[:2] == [1, 2]


@pytest.mark.parametrize("anchor", ANCHORS)
def test_step_by_step_is_the_loss(anchor):
    logits = torch.randn(16, 9, 2, dtype=torch.float64, requires_grad=True)
    target = torch.randint(9, (16, 2))
    both = [bench_loss.step_by_step(logits, target, anchor), anchor_loss(logits, target, anchor=anchor)]
    torch.testing.assert_close(both[0], both[1], rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in both]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-14)


def test_every_loss_is_timed_beside_binary_cross_entropy(monkeypatch):
    monkeypatch.setattr(bench_loss, "ROUNDS", 2)
    table = bench_loss.measure((32, 7), False, CPU).set_index("loss")
    assert len(table) == 1 + 2 * len(ANCHORS)
    assert table.loc["bce", "x_bce"] == 1
    assert (table["microseconds_min"] > 0).all()
    assert (table["microseconds_max"] >= table["microseconds_median"]).all()


@pytest.mark.slow
def test_a_measurement_is_written_and_never_overwritten(tmp_path):
    command = [
        sys.executable,
        bench.__file__,
        "--models",
        "resnet8",
        "--rounds",
        "1",
        "--results-dir",
        tmp_path,
    ]
    for files in (1, 2):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert len(list((tmp_path / "bench").iterdir())) == files
    assert "textbook" in done.stdout
