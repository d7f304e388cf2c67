# SPDX-License-Identifier: MIT
"""Losses that anchor loss is compared with, at the defaults that their authors published.

Each is a function of logits and class indices with the same interface. Nothing but torch is imported. Label smoothing
and softmax cross entropy need no function of their own: they are `torch.nn.functional.cross_entropy`.

For all of them:

Args:
    logits: scores before sigmoid or softmax, (N, C) or (N, C, d1, …), floating-point. Half precision is computed in
        float32.
    target: class indices, (N,) or (N, d1, …), int64.
    reduction: `mean` over samples, `sum` over samples, or `none`: one value a sample, of the target's shape.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def focal(
    logits: Tensor, target: Tensor, gamma: float = 2.0, alpha: float = 0.25, reduction: str = "mean"
) -> Tensor:
    """Focal loss on independent sigmoids: Lin et al., Focal Loss for Dense Object Detection (ICCV 2017), Eq. 5.

    The sum over classes of −α_t (1 − p_t)^γ log p_t, with p_t = p and α_t = α for the target, p_t = 1 − p and
    α_t = 1 − α for the others.

    Args:
        gamma: exponent; 0 is binary cross entropy weighted by α_t.
        alpha: weight of the target's term, in [0, 1].
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha}: must be from 0 to 1")
    logits = _at_least_float32(logits)
    one_hot = _one_hot(logits, target)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, one_hot, reduction="none")
    # 1 − p_t is the probability of the wrong answer.
    wrong = torch.sigmoid(torch.where(one_hot.bool(), -logits, logits))
    weight = torch.where(one_hot.bool(), alpha, 1 - alpha)
    return _reduced((weight * _power(wrong, gamma) * cross_entropy).sum(1), reduction)


def dual_focal(logits: Tensor, target: Tensor, gamma: float = 6.1, reduction: str = "mean") -> Tensor:
    """Dual focal loss on a softmax: Tao et al., Dual Focal Loss for Calibration (ICML 2023).

    −(1 − p_y + p_j)^γ log p_y, where p_j is the largest probability below p_y, and 0 if there is none.

    Args:
        gamma: exponent; the authors use 6.1 for ResNet-110 on CIFAR-100.
    """
    log_p = F.log_softmax(_at_least_float32(logits), 1)
    log_p_target = log_p.gather(1, target.unsqueeze(1))
    below = torch.where(log_p < log_p_target, log_p.exp(), 0)
    factor = 1 - log_p_target.exp().squeeze(1) + below.amax(1)
    return _reduced(-_power(factor, gamma) * log_p_target.squeeze(1), reduction)


def poly1(logits: Tensor, target: Tensor, epsilon: float = 1.0, reduction: str = "mean") -> Tensor:
    """Poly-1 loss on a softmax: Leng et al., PolyLoss (ICLR 2022), Eq. 6. −log p_y + ε (1 − p_y).

    Args:
        epsilon: coefficient of the first polynomial term.
    """
    cross_entropy = F.cross_entropy(_at_least_float32(logits), target, reduction="none")
    return _reduced(cross_entropy + epsilon * (1 - torch.exp(-cross_entropy)), reduction)


def asl(
    logits: Tensor,
    target: Tensor,
    gamma_positive: float = 0.0,
    gamma_negative: float = 4.0,
    epsilon: float = 0.1,
    reduction: str = "mean",
) -> Tensor:
    """Asymmetric loss for one label, on a softmax: Ridnik et al., Asymmetric Loss (ICCV 2021), the authors' code.

    −Σ_c y_c w_c log p_c, where y is the target smoothed by ε, w_c = (1 − p_c)^γ₊ for the target and p_c^γ₋ for the
    others.

    Args:
        gamma_positive: γ₊, exponent of the target's term.
        gamma_negative: γ₋, exponent of the other terms.
        epsilon: label smoothing, in [0, 1).
    """
    if not 0 <= epsilon < 1:
        raise ValueError(f"epsilon={epsilon}: must be at least 0 and below 1")
    log_p = F.log_softmax(_at_least_float32(logits), 1)
    p = log_p.exp()
    one_hot = _one_hot(log_p, target)
    smoothed = one_hot * (1 - epsilon) + epsilon / logits.shape[1]
    weight = torch.where(one_hot.bool(), _power(1 - p, gamma_positive), _power(p, gamma_negative))
    return _reduced(-(smoothed * weight * log_p).sum(1), reduction)


def maxsup(logits: Tensor, target: Tensor, strength: float = 0.1, reduction: str = "mean") -> Tensor:
    """Max suppression, on a softmax: Zhou et al., MaxSup (NeurIPS 2025). −log p_y + λ (max_c z_c − mean_c z_c).

    Args:
        strength: λ.
    """
    logits = _at_least_float32(logits)
    cross_entropy = F.cross_entropy(logits, target, reduction="none")
    return _reduced(cross_entropy + strength * (logits.amax(1) - logits.mean(1)), reduction)


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _power(base: Tensor, exponent: float) -> Tensor:
    """base^exponent for base >= 0; the gradient stays finite where the base is zero and the exponent below one."""
    if exponent < 0:
        raise ValueError(f"exponent {exponent}: must not be negative")
    return base.clamp_min(torch.finfo(base.dtype).tiny) ** exponent


def _one_hot(logits: Tensor, target: Tensor) -> Tensor:
    return torch.zeros_like(logits).scatter_(1, target.unsqueeze(1), 1)


def _reduced(losses: Tensor, reduction: str) -> Tensor:
    if reduction == "mean":
        return losses.mean()
    if reduction == "sum":
        return losses.sum()
    if reduction == "none":
        return losses
    raise ValueError(f"reduction={reduction!r}: must be mean, sum or none")
