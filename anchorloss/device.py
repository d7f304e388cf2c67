"""Which device trains, and what it can do."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

from anchorloss.errors import UserError

if TYPE_CHECKING:
    import torch


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA if present, else MPS, else the CPU.

    Raises: UserError if the device named is not on this machine.
    """
    # Read once, when CUDA starts: its default of 8 would let no more than eight streams run at once.
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")
    import torch

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
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and _cpu_has("avx512_bf16", "amx_bf16")


def choose_convolutions(*, deterministic: bool = False) -> None:
    """Let cuDNN try which is fastest, unless all must be deterministic; and fp32 means fp32, not NVIDIA's TF32."""
    import torch

    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.allow_tf32 = False


def wait_for(device: torch.device) -> None:
    """Wait until the device has done everything that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def describe(device: torch.device) -> str:
    """The device in words, for a record's provenance.

    Virtual machines call very different processors "AMD EPYC", so an x86 processor without AVX-512, whose kernels and
    bfloat16 are others, says so: "AMD EPYC (1 thread, AVX2)".
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    processor = _cpu_field("model name") or platform.processor() or platform.machine()
    if device.type != "cpu":
        return processor
    threads = torch.get_num_threads()
    capability = torch.backends.cpu.get_cpu_capability()
    kernels = f", {capability}" if capability in ("AVX2", "DEFAULT") else ""
    return f"{processor} ({threads} thread{'s' if threads != 1 else ''}{kernels})"


def slug(description: str) -> str:
    """A device's description as part of a file's name: "amd-epyc-1-thread-avx2" of "AMD EPYC (1 thread, AVX2)"."""
    return re.sub(r"[^a-z0-9]+", "-", description.lower()).strip("-")


def processor_kind(description: str) -> str:
    """What `describe` said without the number of threads: "AMD EPYC (AVX2)" of "AMD EPYC (1 thread, AVX2)".

    Equal kinds round alike, unless the threads of a run differ.
    """
    processor, _, details = description.partition(" (")
    kernels = re.sub(r"\d+ threads?(, )?", "", details.removesuffix(")"))
    return f"{processor} ({kernels})" if kernels else processor


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
