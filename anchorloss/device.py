"""Which device trains, and what it can do."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from anchorloss.errors import UserError
from anchorloss.terminal import counted, printable

if TYPE_CHECKING:
    import torch


def resolve_device(name: str) -> torch.device:
    """Find the device that a config names.

    Args:
        name: `cpu`, `cuda`, `cuda:N`, `mps`, or `auto`: CUDA if present, else MPS, else the CPU.

    Raises:
        UserError: The device is not on this machine.
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
    """Return whether the device has bfloat16 arithmetic, so that it is faster than float32."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and not {"avx512_bf16", "amx_bf16"}.isdisjoint(
        _field("/proc/cpuinfo", "flags").split()
    )


def wait_for(device: torch.device) -> None:
    """Wait until the device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def describe(device: torch.device) -> str:
    """Describe the device for a record's provenance.

    Virtual machines give very different processors the name "AMD EPYC". An x86 processor without AVX-512 uses other
    kernels, so its description says so: "AMD EPYC (1 thread, AVX2)".
    """
    import torch

    if device.type == "cuda":
        return printable(torch.cuda.get_device_name(device))
    processor = printable(_processor())
    if device.type != "cpu":
        return processor
    capability = torch.backends.cpu.get_cpu_capability()
    kernels = f", {capability}" if capability in ("AVX2", "DEFAULT") else ""
    return f"{processor} ({counted(torch.get_num_threads(), 'thread')}{kernels})"


def _processor(cpuinfo: str = "/proc/cpuinfo") -> str:
    """The processor's name; on ARM under Linux, which has none, its architecture, implementer and part."""
    if name := _field(cpuinfo, "model name"):
        return name
    if part := _field(cpuinfo, "CPU part"):
        return f"{platform.machine()} {_field(cpuinfo, 'CPU implementer')}:{part}"
    if sys.platform == "darwin":
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        with contextlib.suppress(OSError):
            if name := subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip():
                return name
    return platform.processor() or platform.machine()


def slug(description: str) -> str:
    """Turn a description into part of a file name: "AMD EPYC (1 thread, AVX2)" gives "amd-epyc-1-thread-avx2"."""
    return re.sub(r"[^a-z0-9]+", "-", description.lower()).strip("-")


def processor_kind(description: str) -> str:
    """Take the number of threads out of a description: "AMD EPYC (1 thread, AVX2)" gives "AMD EPYC (AVX2)".

    Equal kinds round alike, unless runs differ in their threads.
    """
    processor, _, details = description.partition(" (")
    kernels = re.sub(r"\d+ threads?(, )?", "", details.removesuffix(")"))
    return f"{processor} ({kernels})" if kernels else processor


def _field(path: str, field: str) -> str:
    """A field of a file that Linux makes, the first of its name; empty elsewhere."""
    text = Path(path).read_text() if Path(path).exists() else ""
    found = re.search(rf"^{field}[ \t]*:(.*)", text, re.MULTILINE)
    return found[1].strip() if found else ""
