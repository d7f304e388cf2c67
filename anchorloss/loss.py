"""Anchor loss: Equations 1 to 4 of the supplement of Ryou, Jeong and Perona, ICCV 2019. Needs nothing but torch.

With q = sigmoid(logits), Eq. 1 is the same expression for every class once its sign is turned at the target. Let
z = -logit at the target and z = logit at a background class. Then

    loss of a class = (sigmoid(z) + margin) ** gamma * softplus(z)

where `margin` is q_pos at the target (Eq. 2: the largest background score) and 1 - q_neg at a background class (Eq. 3:
one minus the target's score), because 1 - q + q_pos = sigmoid(-logit) + q_pos and 1 + q - q_neg = sigmoid(logit) +
sigmoid(-target logit). Nothing cancels in these, so the bases are right for saturated logits too. The derivative is

    base ** gamma * (gamma * sigmoid(z) / base * (1 - sigmoid(z)) * softplus(z) + sigmoid(z))

in which sigmoid(z) / base is between 0 and 1: written so, it is finite where base ** (gamma - 1) is not.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ANCHORS = ("none", "target", "background", "both")
REDUCTIONS = ("none", "mean", "sum")


def anchor_loss(
    logits: Tensor,
    target: Tensor,
    gamma: float = 0.5,
    anchor: str = "background",
    slack: float = 0.0,
    reduction: str = "mean",
    *,
    detach: bool = True,
    gamma_target: float | None = None,
    gamma_background: float | None = None,
) -> Tensor:
    """Anchor loss on sigmoid binary cross entropy, summed over classes.

    Args:
        logits: (N, C), (N, C, d1, …) or (C,), floating point; half precision is computed in float32.
        target: class indices, int64, (N,), (N, d1, …) or (), as in `torch.nn.functional.cross_entropy`.
        gamma: exponent of the modulating factors; 0 is binary cross entropy.
        anchor: `none` (binary cross entropy), `target` (i, Eq. 2), `background` (ii, Eq. 3) or `both` (iii, Eq. 4).
        slack: added to the anchor of the target and taken from that of the background, then clamped to [0, 1], as in
            the authors' code; Eq. 1 to 4 have none.
        reduction: `mean` or `sum` over samples, or `none`.
        detach: keep gradients out of the anchors, as the authors' code does.
        gamma_target, gamma_background: in place of gamma in one term of Eq. 1; the anchor still decides which
            terms are modulated.

    Returns: float32 or float64; no axes, or the shape of `target` for `none`.

    Raises: ValueError for an unknown anchor or reduction, gamma < 0, slack outside [0, 1], or shapes that do not fit;
        TypeError for wrong dtypes; IndexError or RuntimeError from torch for labels out of range.
    """
    exponents = _exponents(gamma, anchor, slack, gamma_target, gamma_background)
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, not {reduction!r}")
    rows, labels = _as_rows(logits, target)
    if exponents == (0.0, 0.0):
        one_hot = torch.zeros_like(rows).scatter(1, labels[:, None], 1.0)
        losses = F.binary_cross_entropy_with_logits(rows, one_hot, reduction="none").sum(1)
    else:
        losses = _AnchorLossFunction.apply(rows, labels, *exponents, slack, detach)
    if reduction == "none":
        return losses.view(target.shape)
    return losses.mean() if reduction == "mean" else losses.sum()


class AnchorLoss(nn.Module):
    """`anchor_loss` as a module; the arguments are the same."""

    def __init__(
        self,
        gamma: float = 0.5,
        anchor: str = "background",
        slack: float = 0.0,
        reduction: str = "mean",
        *,
        detach: bool = True,
        gamma_target: float | None = None,
        gamma_background: float | None = None,
    ) -> None:
        super().__init__()
        _exponents(gamma, anchor, slack, gamma_target, gamma_background)
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, not {reduction!r}")
        self.gamma = gamma
        self.anchor = anchor
        self.slack = slack
        self.reduction = reduction
        self.detach = detach
        self.gamma_target = gamma_target
        self.gamma_background = gamma_background

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """`anchor_loss(logits, target)` with the module's arguments."""
        return anchor_loss(
            logits,
            target,
            self.gamma,
            self.anchor,
            self.slack,
            self.reduction,
            detach=self.detach,
            gamma_target=self.gamma_target,
            gamma_background=self.gamma_background,
        )

    def extra_repr(self) -> str:
        return f"gamma={self.gamma}, anchor={self.anchor!r}, slack={self.slack}, reduction={self.reduction!r}"


def modulation(
    logits: Tensor,
    target: Tensor,
    gamma: float = 0.5,
    anchor: str = "background",
    slack: float = 0.0,
    *,
    gamma_target: float | None = None,
    gamma_background: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The modulating factors of Eq. 1, for looking at; no gradient.

    Returns: the factor of the target class, (N,), and those of the background classes, (N, C), with 1 at the target;
        for logits (N, C, d1, …) the former is shaped as `target` and the latter as `logits`.

    Raises: as `anchor_loss`.
    """
    gamma_t, gamma_b = _exponents(gamma, anchor, slack, gamma_target, gamma_background)
    rows, labels = _as_rows(logits.detach(), target)
    z, own, margin = _signed(rows, labels, slack)
    base = torch.sigmoid(z) + margin
    of_target = base.gather(1, own).squeeze(1) ** gamma_t
    of_background = (base**gamma_b).scatter(1, own, 1.0)
    if logits.ndim < 2:
        return of_target.view(target.shape), of_background.view(logits.shape)
    moved = of_background.view(*target.shape, logits.shape[1]).movedim(-1, 1)
    return of_target.view(target.shape), moved


def _exponents(
    gamma: float, anchor: str, slack: float, gamma_target: float | None, gamma_background: float | None
) -> tuple[float, float]:
    """gamma_t and gamma_b of Eq. 1."""
    if anchor not in ANCHORS:
        raise ValueError(f"anchor must be one of {', '.join(ANCHORS)}, not {anchor!r}")
    if not 0 <= slack <= 1:
        raise ValueError(f"slack must be from 0 to 1, not {slack}")
    gamma_t = gamma if gamma_target is None else gamma_target
    gamma_b = gamma if gamma_background is None else gamma_background
    for value in (gamma, gamma_t, gamma_b):
        if not 0 <= value < float("inf"):
            raise ValueError(f"gamma must be finite and not negative, not {value}")
    return float(gamma_t) * (anchor in ("target", "both")), float(gamma_b) * (
        anchor in ("background", "both")
    )


def _as_rows(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Logits as (samples, C) in float32 or float64, labels as (samples,)."""
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, not {logits.dtype}")
    if target.dtype != torch.int64:
        raise TypeError(f"target must hold int64 class indices, not {target.dtype}")
    expected = logits.shape[:1] + logits.shape[2:] if logits.ndim > 1 else torch.Size()
    if logits.ndim == 0 or target.shape != expected:
        raise ValueError(
            f"target must be {tuple(expected)} for logits {tuple(logits.shape)}, not {tuple(target.shape)}"
        )
    classes = logits.shape[1 if logits.ndim > 1 else 0]
    if classes < 2:
        raise ValueError(f"logits must have at least two classes, not {classes}")
    rows = logits.movedim(1, -1).reshape(-1, classes) if logits.ndim > 1 else logits[None]
    if rows.dtype in (torch.float16, torch.bfloat16):
        rows = rows.float()
    return rows, target.reshape(-1)


def _signed(rows: Tensor, labels: Tensor, slack: float) -> tuple[Tensor, Tensor, Tensor]:
    """z (samples, C), the target's column (samples, 1), and the margin (samples, C) of the module's docstring."""
    own = labels[:, None]
    own_logit = rows.gather(1, own)
    strongest = rows.scatter(1, own, float("-inf")).amax(1, keepdim=True)
    margin_of_target = (torch.sigmoid(strongest) + slack).clamp(max=1)
    margin_of_background = (torch.sigmoid(-own_logit) + slack).clamp(max=1)
    margin = margin_of_background.expand_as(rows).scatter(1, own, margin_of_target)
    return rows.scatter(1, own, -own_logit), own, margin


class _AnchorLossFunction(torch.autograd.Function):
    """The losses of the samples; keeps the logits alone, and computes the gradient from them in closed form."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        rows: Tensor, labels: Tensor, gamma_target: float, gamma_background: float, slack: float, detach: bool
    ) -> Tensor:
        z, own, margin = _signed(rows, labels, slack)
        factor = _factor(torch.sigmoid(z) + margin, own, gamma_target, gamma_background)
        return (factor * _softplus(z)).sum(1)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        rows, labels, ctx.gamma_target, ctx.gamma_background, ctx.slack, ctx.detach = inputs
        ctx.save_for_backward(rows, labels)

    @staticmethod
    def backward(ctx, gradient: Tensor):  # type: ignore[no-untyped-def]
        rows, labels = ctx.saved_tensors
        gradient_of_rows = _gradient(
            rows, labels, ctx.gamma_target, ctx.gamma_background, ctx.slack, ctx.detach
        )
        return gradient_of_rows * gradient[:, None], None, None, None, None, None


def _softplus(z: Tensor) -> Tensor:
    """log(1 + exp(z)), which torch's own `softplus` rounds to z or overflows, by its threshold."""
    return -F.logsigmoid(-z)


def _factor(base: Tensor, own: Tensor, gamma_target: float, gamma_background: float) -> Tensor:
    """base ** gamma, with the exponent of the target in its column."""
    if gamma_target == gamma_background:
        return base**gamma_target
    return (base**gamma_background).scatter(1, own, base.gather(1, own) ** gamma_target)


def _gradient(
    rows: Tensor, labels: Tensor, gamma_target: float, gamma_background: float, slack: float, detach: bool
) -> Tensor:
    z, own, margin = _signed(rows.detach() if detach else rows, labels, slack)
    if detach:
        own_logit = rows.gather(1, own)
        z = rows.scatter(1, own, -own_logit)
    score = torch.sigmoid(z)
    base = score + margin
    tiny = torch.finfo(base.dtype).tiny
    factor = _factor(base, own, gamma_target, gamma_background)
    weight = torch.full_like(base, gamma_background).scatter(1, own, gamma_target)
    steepness = factor * weight * _softplus(z) / base.clamp_min(tiny)
    of_z = steepness * score * torch.sigmoid(-z) + factor * score
    of_rows = of_z.scatter(1, own, -of_z.gather(1, own))
    if detach:
        return of_rows
    return of_rows + _gradient_through_anchors(rows, own, steepness, slack)


def _gradient_through_anchors(rows: Tensor, own: Tensor, steepness: Tensor, slack: float) -> Tensor:
    """What `detach=False` adds; `steepness` (samples, C) is the derivative by the margin. Ties share equally."""
    own_logit = rows.gather(1, own)
    others = rows.scatter(1, own, float("-inf"))
    strongest = others.amax(1, keepdim=True)
    at_strongest = (others == strongest).to(rows.dtype)
    open_above = (torch.sigmoid(strongest) + slack < 1).to(rows.dtype)
    open_below = (torch.sigmoid(-own_logit) + slack < 1).to(rows.dtype)
    of_strongest = (
        steepness.gather(1, own) * torch.sigmoid(strongest) * torch.sigmoid(-strongest) * open_above
    )
    of_background = steepness.scatter(1, own, 0.0).sum(1, keepdim=True)
    of_own = -of_background * torch.sigmoid(own_logit) * torch.sigmoid(-own_logit) * open_below
    return (of_strongest * at_strongest / at_strongest.sum(1, keepdim=True)).scatter_add(1, own, of_own)
