"""The forward pass in bf16 against autocast's own casts, bit for bit."""

from __future__ import annotations

import contextlib

import pytest
import torch

import models
from anchorloss.training.precision import EmulatedBf16, forward_pass, input_dtype, needs_emulation

CPU = torch.device("cpu")


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_weights_cast_together_give_the_bits_of_autocast(shortcut):
    torch.manual_seed(0)
    network = models.build("resnet8", 10, shortcut).to(memory_format=torch.channels_last)
    images = torch.randn(4, 3, 32, 32).to(input_dtype("bf16"), memory_format=torch.channels_last)
    results = []
    for together in (True, False):
        network.zero_grad(set_to_none=True)
        emulation = EmulatedBf16() if needs_emulation(CPU) else contextlib.nullcontext()
        if together:
            logits = forward_pass(network, CPU, "bf16")(images)
        else:
            with torch.autocast("cpu", torch.bfloat16, cache_enabled=False), emulation:
                logits = network(images).float()
        logits.square().sum().backward()
        results.append([logits, *(parameter.grad for parameter in network.parameters())])
    assert all(torch.equal(ours, expected) for ours, expected in zip(*results, strict=True))


def test_a_weight_that_takes_no_part_has_no_gradient():
    """As under autocast, so that weight decay does not move it."""
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    network.unused = torch.nn.Linear(2, 2)
    network.forward = lambda images: network[1](network[0](images))
    forward_pass(network, CPU, "bf16")(torch.randn(3, 3, 2, 2)).sum().backward()
    assert network[1].weight.grad is not None
    assert network.unused.weight.grad is None
