"""bf16: the forward pass under autocast, and emulated bfloat16 against float64 and torch's own kernels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anchorloss.training import precision
from anchorloss.training.precision import EmulatedBf16, forward_pass

# Half a unit in the last place of bfloat16's 8 significant bits, and as much again for the order of summation.
ONE_ROUNDING = 2.0**-8


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layer", [nn.Conv2d, nn.Linear])
def test_a_layer_rounds_its_inputs_and_its_sum_only(layer, bias):
    torch.manual_seed(0)
    ours = layer(3, 8, 3, stride=2, bias=bias) if layer is nn.Conv2d else layer(8, 4, bias=bias)
    images = torch.randn(4, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16), EmulatedBf16():
        found = ours(images)
    exact = ours.double()(images.double())
    rounded = layer(3, 8, 3, stride=2, bias=bias) if layer is nn.Conv2d else layer(8, 4, bias=bias)
    rounded.load_state_dict({name: value.bfloat16() for name, value in ours.state_dict().items()})
    expected = rounded.double()(images.bfloat16().double())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), expected, rtol=ONE_ROUNDING, atol=1e-5)
    assert (found.double() - exact).square().mean() > 1.2 * (found.double() - expected).square().mean()


def test_logits_and_gradients_agree_with_torchs_own_bf16(monkeypatch):
    """Where torch has native kernels they are compared with, elsewhere its reference implementation."""
    images, target = torch.randn(4, 3, 8, 8).bfloat16(), torch.tensor([0, 3, 5, 9])
    found = []
    for emulated in (True, False):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 10))
        monkeypatch.setattr(precision, "needs_emulation", lambda _, emulated=emulated: emulated)
        logits = forward_pass(network, torch.device("cpu"), "bf16")(images)
        nn.functional.cross_entropy(logits, target).backward()
        found.append([logits, *(parameter.grad for parameter in network.parameters())])
    assert {each.dtype for each in found[0]} == {torch.float32}
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.05, atol=1e-2)
