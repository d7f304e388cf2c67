"""Anchor Loss (Ryou, Jeong, Perona; ICCV 2019): the loss, and what reproduces its CIFAR-100 comparison.

Names are resolved on first use, so that the parts which do not need torch do not import it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anchorloss.loss import AnchorLoss, anchor_loss

__all__ = ["AnchorLoss", "__version__", "anchor_loss"]
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    if name in ("AnchorLoss", "anchor_loss"):
        from anchorloss import loss

        return getattr(loss, name)
    raise AttributeError(f"module 'anchorloss' has no attribute {name!r}")
