"""Anchor Loss (Ryou, Jeong, Perona; ICCV 2019): the loss, and what reproduces its CIFAR-100 comparison.

Names are resolved on first use, so that the parts which do not need torch do not import it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["AnchorLoss", "__version__", "anchor_loss"]
__version__ = "0.2.0"

if TYPE_CHECKING:  # a type checker sees these names and no `__getattr__`, so that a misspelt one is an error
    from anchorloss.loss import AnchorLoss, anchor_loss
else:

    def __getattr__(name):
        if name in ("AnchorLoss", "anchor_loss"):
            from anchorloss import loss

            return getattr(loss, name)
        raise AttributeError(f"module 'anchorloss' has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__all__})
