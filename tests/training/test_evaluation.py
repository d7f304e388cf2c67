"""The figures of an evaluation, each by another way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from anchorloss.loss import anchor_loss
from anchorloss.training.build import build_loss
from anchorloss.training.evaluation import measure
from tests.in_process import settings
from tests.training.textbook import ranks


def test_what_is_measured_at_known_logits():
    """Some of them equal or not a number, against sorting by NumPy."""
    generator = torch.Generator().manual_seed(0)
    # Steps of a quarter, so that scores tie.
    logits = (torch.randn(200, 100, generator=generator) * 4).round() / 4
    target = torch.randint(0, 100, (200,), generator=generator)
    logits[:20].scatter_add_(1, target[:20, None], torch.full((20, 1), 9.0))
    for name in ("bce", "anchor_target", "anchor_bg", "anchor_both", "softmax"):
        (run,) = settings(f"loss={name}")
        loss = build_loss(run.loss)
        found = measure(logits, target, run.loss, loss)
        rank = ranks(logits, target)
        assert (found.top1, found.top5) == ((rank == 0).mean() * 100, (rank < 5).mean() * 100)
        assert 10 <= found.top1 < found.top5
        assert (found.target_rank == rank).all()
        assert (found.predicted == logits.argmax(1).numpy()).all()
        assert (found.target == target.numpy()).all()
        scores = logits.double().softmax(1) if name == "softmax" else logits.double().sigmoid()
        assert np.allclose(found.confidence, scores.amax(1).numpy(), rtol=1e-3)
        if name == "softmax":
            expected = F.cross_entropy(logits.double(), target)
        else:
            expected = anchor_loss(logits.double(), target, **run.loss.arguments)
        assert found.loss == pytest.approx(float(expected), rel=1e-6)
        assert_factors(found.factors, logits.double().sigmoid(), target, run.loss.arguments)
    logits[0, target[0]] = torch.nan
    found = measure(logits, target, run.loss, loss)
    assert found.target_rank[0] == 99


def assert_factors(factors, scores, target, arguments) -> None:
    """The quantiles are those of the factors of Eq. 1, by anchor as Eq. 2 to 4 have it."""
    anchor, gamma = arguments.get("anchor", "none"), arguments.get("gamma", 0)
    if anchor == "none":
        assert factors == {}
        return
    is_target = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, target[:, None], True)
    highest_other = scores.masked_fill(is_target, 0).amax(1)
    own = scores[is_target]
    of_target = (1 - own + highest_other) ** (gamma if anchor in ("target", "both") else 0)
    of_background = (1 + scores - own[:, None]) ** (gamma if anchor in ("background", "both") else 0)
    expected = {f"target_factor_q{q}": np.quantile(of_target.numpy(), q / 100) for q in (50, 90)}
    for q in (50, 90, 99):
        expected[f"background_factor_q{q}"] = np.quantile(of_background[~is_target].numpy(), q / 100)
    assert factors == pytest.approx(expected, rel=1e-5)
