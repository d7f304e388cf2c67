"""Anchor Loss (Ryou, Jeong, Perona; ICCV 2019): the loss, and what reproduces its CIFAR-100 comparison.

Names are resolved on first use, so that the parts which do not need torch do not import it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anchorloss.loss import AnchorLoss, anchor_loss

__all__ = ["AnchorLoss", "anchor_loss"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from anchorloss import loss

        return getattr(loss, name)
    raise AttributeError(f"module 'anchorloss' has no attribute {name!r}")
