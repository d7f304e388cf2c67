"""Emulated bfloat16 against the formula in float64 and against torch's own bfloat16 kernels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anchorloss.device import _processor, processor_kind
from anchorloss.training.precision import EmulatedBf16

# Half a unit in the last place of bfloat16's 8 significant bits, and as much again for the order of summation.
ONE_ROUNDING = 2.0**-8


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 10))


def test_convolution_rounds_its_inputs_and_its_sum_only():
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    weight = torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(2))
    with torch.autocast("cpu", torch.bfloat16), EmulatedBf16():
        ours = torch.nn.functional.conv2d(images, weight, stride=2, padding=1)
    exact = torch.nn.functional.conv2d(
        images.bfloat16().double(), weight.bfloat16().double(), stride=2, padding=1
    )
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.double(), exact, rtol=ONE_ROUNDING, atol=1e-5)
    unrounded = torch.nn.functional.conv2d(images.double(), weight.double(), stride=2, padding=1)
    assert (ours.double() - unrounded).abs().max() > (ours.double() - exact).abs().max()


def test_logits_and_gradients_agree_with_torchs_own_bf16():
    """Where torch has native kernels they are compared with, elsewhere its reference implementation."""
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    target = torch.tensor([0, 3, 5, 9])
    networks = small_network(), small_network()
    outputs = []
    for network, emulated in zip(networks, (True, False), strict=True):
        with torch.autocast("cpu", torch.bfloat16):
            if emulated:
                with EmulatedBf16():
                    logits = network(images)
            else:
                logits = network(images)
        nn.functional.cross_entropy(logits.float(), target).backward()
        outputs.append(logits)
    assert outputs[0].dtype == outputs[1].dtype == torch.bfloat16
    torch.testing.assert_close(*outputs, rtol=2 * ONE_ROUNDING, atol=1e-2)
    for ours, theirs in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert ours.grad is not None
        assert ours.grad.dtype == torch.float32
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0.05, atol=2e-3)


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_with_and_without_bias(bias):
    torch.manual_seed(0)
    layer = nn.Linear(16, 4, bias=bias)
    inputs = torch.randn(8, 16)
    with torch.autocast("cpu", torch.bfloat16), EmulatedBf16():
        ours = layer(inputs)
    exact = inputs.bfloat16().double() @ layer.weight.bfloat16().double().T
    exact = exact + layer.bias.bfloat16().double() if bias else exact
    torch.testing.assert_close(ours.double(), exact, rtol=ONE_ROUNDING, atol=1e-5)


@pytest.mark.parametrize(
    ("device", "kind"),
    [
        ("AMD EPYC (1 thread)", "AMD EPYC"),
        ("AMD EPYC (2 threads, AVX2)", "AMD EPYC (AVX2)"),
        ("Intel(R) Xeon(R) Processor (1 thread)", "Intel(R) Xeon(R) Processor"),
        ("Intel(R) Xeon(R) Processor (16 threads, AVX2)", "Intel(R) Xeon(R) Processor (AVX2)"),
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3"),
    ],
)
def test_the_kind_of_a_processor_is_its_device_without_threads(device, kind):
    assert processor_kind(device) == kind


def test_arm_processors_of_two_makers_are_two_kinds(tmp_path):
    """Linux gives them no name, only the numbers of the implementer and the part."""
    cpuinfo = tmp_path / "cpuinfo"
    found = set()
    for implementer, part in (("0x41", "0xd40"), ("0xc0", "0xac3")):
        cpuinfo.write_text(f"processor\t: 0\nCPU implementer\t: {implementer}\nCPU part\t: {part}\n")
        found.add(processor_kind(f"{_processor(str(cpuinfo))} (2 threads)"))
    assert len(found) == 2
