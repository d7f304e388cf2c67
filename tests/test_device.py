"""What a processor is called."""

from __future__ import annotations

import pytest

from anchorloss.device import _processor, processor_kind


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
