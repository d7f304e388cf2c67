"""A network's weights as a safetensors file, which can hold nothing but named tensors: loading one runs no code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor, nn

from anchorloss.errors import UserError


def to_bytes(state: Mapping[str, Tensor]) -> bytes:
    """The safetensors file of a `state_dict`: floating-point tensors in float32, equal states give equal bytes."""
    # One metadata key at most: safetensors does not keep the order of several.
    return safetensors.torch.save({name: _plain(value) for name, value in state.items()}, {"format": "pt"})


def load_into(network: nn.Module, content: bytes, source: Path) -> None:
    """Give `network` the weights in `content`, the bytes of a safetensors file.

    Raises:
        UserError: naming `source`, if it is no safetensors file or has other tensors than the network.
    """
    try:
        state = safetensors.torch.load(content)
    except Exception as error:  # a damaged header raises safetensors', Python's and torch's own errors
        reason = " ".join(ascii(str(error))[1:-1].split())[:100]
        raise UserError(f"{source}: not a safetensors file ({reason}); restore it from a copy") from error
    try:
        network.load_state_dict(state)
    except RuntimeError as error:  # the first line names the network, each other one a tensor
        problem = ascii(str(error).splitlines()[1].strip())[1:-1][:200]
        raise UserError(f"{source}: {problem}; name the network that these weights are of") from None


def _plain(value: Tensor) -> Tensor:
    value = value.detach().cpu().contiguous()
    return value.float() if value.is_floating_point() else value
