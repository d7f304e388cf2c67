"""Which device trains, and what it can do."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from anchorloss.errors import UserError


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA if present, else MPS, else the CPU.

    Raises: UserError if the device named is not on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device={name}: no such device; use auto, cpu, cuda, cuda:N or mps") from None
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present.get(device.type, False):
        raise UserError(f"device={name}: not on this machine; use device=auto")
    return device


def computes_bf16(device: torch.device) -> bool:
    """Whether bfloat16 arithmetic is native there, so that it is faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and _cpu_has("avx512_bf16", "amx_bf16")


def choose_convolutions(*, deterministic: bool = False) -> None:
    """Let cuDNN try which is fastest, unless all must be deterministic; and fp32 means fp32, not NVIDIA's TF32."""
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.allow_tf32 = False


def describe(device: torch.device) -> str:
    """The device in words, for a record's provenance."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    processor = _cpu_field("model name") or platform.processor() or platform.machine()
    return (
        f"{processor} ({threads} thread{'s' if threads != 1 else ''})" if device.type == "cpu" else processor
    )


def _cpu_has(*features: str) -> bool:
    flags = _cpu_field("flags").split()
    return any(feature in flags for feature in features)


def _cpu_field(field: str) -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith(field):
                return line.partition(":")[2].strip()
    return ""
