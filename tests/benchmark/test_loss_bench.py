"""The loss's benchmark: what it compares are the same numbers, and what it calls memory is memory."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
import torch

from anchorloss.loss import ANCHORS, anchor_loss
from tests.conftest import ROOT

SCRIPT = ROOT / "scripts" / "bench_loss.py"


@pytest.fixture(scope="module")
def bench():
    specification = importlib.util.spec_from_file_location("bench_loss", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("anchor", ["none", "target", "background", "both"])
def test_step_by_step_is_the_loss(bench, anchor):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(16, 9, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randint(9, (16,), generator=generator)
    both = [bench.step_by_step(logits, target, anchor), anchor_loss(logits, target, anchor=anchor)]
    torch.testing.assert_close(both[0], both[1], rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in both]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-14)


def test_everything_compared_is_one_of_the_losses(bench):
    rows = bench.measure((32, 7), torch.device("cpu"), 0.01, "eager")
    assert len(rows) == len({row["loss"] for row in rows}) == 10
    for row in rows:
        assert tuple(row) == bench.COLUMNS
        assert 0 < row["us_low"] <= row["us"] <= row["us_high"]
        assert row["x_logits_memory"] >= 1
    one = {row["loss"]: row for row in rows}
    assert one["binary cross entropy"]["x_bce"] == 1
    assert one["step by step, both"]["step_by_step_x"] == 1


def test_of_a_segmentation_batch_samples_are_ignored(bench):
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 4, 3)
    target = torch.randint(5, (2, 4, 3))
    target[0, 0] = bench.IGNORED
    compared = bench.losses(logits, target)
    assert compared["anchor loss, both"](logits) == anchor_loss(logits, target, anchor="both")
    rows = bench.measure((2, 5, 4, 3), torch.device("cpu"), 0.01, "eager")
    assert [row["step_by_step_x"] for row in rows[1:]] == [""] * 4
    assert {(row["samples"], row["classes"]) for row in rows} == {(24, 5)}


def test_peak_memory_is_what_is_held_at_a_time(bench):
    def work():
        first = torch.ones(1000)
        del first
        second = torch.ones(3000)
        return second + 1

    assert 4 * 6000 <= bench.peak_memory(work) < 4 * 6100


@pytest.mark.parametrize("arguments", [{"anchor": anchor} for anchor in ANCHORS] + [{"label_smoothing": 0.1}])
def test_memory_of_a_segmentation_batch(bench, arguments):
    """Counted, not timed: at most 2.5 times the logits, beside logits and target."""
    logits = torch.randn(4, 21, 256, 256, requires_grad=True)
    target = torch.randint(21, (4, 256, 256))
    target[:, :40] = 255

    def work():
        torch.autograd.grad(anchor_loss(logits, target, ignore_index=255, **arguments), logits)

    assert bench.peak_memory(work) <= 2.5 * logits.nbytes


def test_a_mistake_is_one_line():
    finished = subprocess.run(
        [sys.executable, SCRIPT, "--seconds", "0"], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 2
    assert finished.stderr.count("\n") == 1
