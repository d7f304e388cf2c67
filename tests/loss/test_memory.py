"""How much memory the loss holds at a time, counted, not timed."""

from __future__ import annotations

import json
from itertools import accumulate

import pytest
import torch
from torch.profiler import profile

from anchorloss.loss import ANCHORS, anchor_loss


def peak_memory(work, folder) -> int:
    """The most bytes that `work` holds at a time; what it finds is not counted."""
    with profile(profile_memory=True) as profiler:
        work()
    profiler.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    moved = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event["name"] == "[memory]")
    return max(accumulate((size for _, size in moved), initial=0))


def test_peak_memory_is_what_is_held_at_a_time(tmp_path):
    def work():
        first = torch.ones(1000)
        del first
        second = torch.ones(3000)
        return second + 1

    assert 4 * 6000 <= peak_memory(work, tmp_path) < 4 * 6100


@pytest.mark.parametrize("arguments", [{"anchor": anchor} for anchor in ANCHORS] + [{"label_smoothing": 0.1}])
def test_memory_of_a_segmentation_batch(tmp_path, arguments):
    """At most 2.5 times the logits, beside logits and target."""
    logits = torch.randn(4, 21, 256, 256, requires_grad=True)
    target = torch.randint(21, (4, 256, 256))
    target[:, :40] = 255

    def work():
        torch.autograd.grad(anchor_loss(logits, target, ignore_index=255, **arguments), logits)

    assert peak_memory(work, tmp_path) <= 2.5 * logits.nbytes
