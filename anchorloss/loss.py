"""Anchor loss: Equations 1 to 4 of the supplement of Ryou, Jeong and Perona, ICCV 2019. Needs nothing but torch.

With q = sigmoid(logits), Eq. 1 is the same expression for every class once its sign is turned at the target. Let
z = -logit at the target and z = logit at a background class. Then

    loss of a class = (sigmoid(z) + margin) ** gamma * softplus(z)

where `margin` is q_pos at the target (Eq. 2: the largest background score) and 1 - q_neg at a background class (Eq. 3:
one minus the target's score), because 1 - q + q_pos = sigmoid(-logit) + q_pos and 1 + q - q_neg = sigmoid(logit) +
sigmoid(-target logit). Nothing cancels in these, so the bases are right for saturated logits too. The derivative by z is

    base ** gamma * (gamma * softplus(z) / base * sigmoid(z) * (1 - sigmoid(z)) + sigmoid(z))

and is finite too: where base is small, softplus(z) is no larger.

`_losses` is the loss in differentiable operations. `_LossAndGradient` computes the same and its gradient in one go, with
fewer passes over the logits, and is what training uses, compiled or not; beside the logits it keeps their gradient, and
needs a few blocks of `_in_blocks`. Second derivatives, torch.func and anchors that are not detached come from `_losses`.
"""

from __future__ import annotations

from typing import Any

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
    # A transform of torch.func refuses a Function that has no `setup_context`; one that has it costs as much time a call
    # as the loss of 128 samples. Eager, gamma 0 is torch's own binary cross entropy, bit for bit.
    in_one_go = detach if exponents != (0.0, 0.0) else torch.compiler.is_compiling()
    if in_one_go and not torch._C._are_functorch_transforms_active():
        losses = _LossAndGradient.apply(rows, labels, *exponents, slack, reduction)
    else:
        losses = _reduced(_losses(rows, labels, *exponents, slack, detach), reduction)
    return losses.view(target.shape) if reduction == "none" else losses


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
    own = labels[:, None]
    own_score = torch.sigmoid(-rows.gather(1, own))
    of_target = (own_score + _margin_of_target(rows, own, slack)) ** gamma_t
    of_background = (torch.sigmoid(rows) + _with_slack(own_score, slack)) ** gamma_b
    of_background = of_background.scatter(1, own, 1.0)
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
    if logits.ndim != 2:
        logits = logits.movedim(1, -1).reshape(-1, classes) if logits.ndim > 1 else logits[None]
        target = target.reshape(-1)
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return logits, target


def _reduced(losses: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()


def _margin_of_target(rows: Tensor, own: Tensor, slack: float) -> Tensor:
    """q_pos (samples, 1) for rows (samples, C) and labels `own` (samples, 1)."""
    strongest = rows.scatter(1, own, float("-inf")).amax(1, keepdim=True)
    return _with_slack(torch.sigmoid(strongest), slack)


def _with_slack(margin: Tensor, slack: float) -> Tensor:
    """At most 1, as in the authors' code, and never 0: the base needs a finite power gamma - 1."""
    tiny = torch.finfo(margin.dtype).tiny
    return (margin + slack).clamp(tiny, 1.0) if slack else margin.clamp_min(tiny)


def _softplus(z: Tensor) -> Tensor:
    """log(1 + exp(z)); beyond 80, where exp would overflow, it is z in every type. torch's own default is 20."""
    return F.softplus(z, threshold=80.0)


def _losses(
    rows: Tensor, labels: Tensor, gamma_target: float, gamma_background: float, slack: float, detach: bool
) -> Tensor:
    """The losses of the samples (samples,) from rows (samples, C)."""
    own = labels[:, None]
    if not (gamma_target or gamma_background):
        one_hot = torch.zeros_like(rows).scatter(1, own, 1.0)
        return F.binary_cross_entropy_with_logits(rows, one_hot, reduction="none").sum(1)
    own_z = -rows.gather(1, own)
    own_score = torch.sigmoid(own_z)
    of_class, of_target = _softplus(rows), _softplus(own_z)
    if gamma_background:
        margin = _with_slack(own_score.detach() if detach else own_score, slack)
        of_class = (torch.sigmoid(rows) + margin) ** gamma_background * of_class
    if gamma_target:
        margin = _margin_of_target(rows.detach() if detach else rows, own, slack)
        of_target = (own_score + margin) ** gamma_target * of_target
    return of_class.scatter(1, own, of_target).sum(1)


class _LossAndGradient(torch.autograd.Function):
    """The reduced `_losses` with detached anchors; their gradient is computed along with them and kept."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        labels: Tensor,
        gamma_target: float,
        gamma_background: float,
        slack: float,
        reduction: str,
    ) -> Tensor:
        ctx.arguments = gamma_target, gamma_background, slack
        ctx.reduction = reduction
        losses, of_rows = _in_blocks(rows, labels[:, None], *ctx.arguments)
        ctx.save_for_backward(rows, labels, of_rows)
        return _reduced(losses, reduction)

    @staticmethod
    def backward(ctx: Any, of_loss: Tensor) -> tuple[Tensor | None, ...]:
        rows, labels, of_rows = ctx.saved_tensors
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # a second derivative is wanted
            gamma_target, gamma_background, slack = ctx.arguments
            losses = _losses(rows, labels, gamma_target, gamma_background, slack, detach=True)
            losses = _reduced(losses, ctx.reduction)
            (of_rows,) = torch.autograd.grad(losses, rows, of_loss, create_graph=True)
        elif ctx.reduction == "mean":
            of_rows = of_rows * (of_loss / len(rows))
        else:
            of_rows = of_rows * (of_loss[:, None] if ctx.reduction == "none" else of_loss)
        return of_rows, None, None, None, None, None


def _in_blocks(
    rows: Tensor, own: Tensor, gamma_target: float, gamma_background: float, slack: float
) -> tuple[Tensor, Tensor]:
    """`_losses_and_gradient`, of as many samples at a time as leave the temporaries in a cache.

    A compiler makes one pass of it by itself.
    """
    at_once = max(1, (2**16 if rows.device.type == "cpu" else 2**20) // rows.shape[1])
    if len(rows) <= at_once or torch.compiler.is_compiling():
        return _losses_and_gradient(rows, own, gamma_target, gamma_background, slack)
    losses, of_rows = rows.new_empty(len(rows)), torch.empty_like(rows)
    for start in range(0, len(rows), at_once):
        block = slice(start, start + at_once)
        losses[block], of_rows[block] = _losses_and_gradient(
            rows[block], own[block], gamma_target, gamma_background, slack
        )
    return losses, of_rows


def _losses_and_gradient(
    rows: Tensor, own: Tensor, gamma_target: float, gamma_background: float, slack: float
) -> tuple[Tensor, Tensor]:
    """The losses (samples,) and their gradient (samples, C)."""
    own_z = -rows.gather(1, own)
    own_score = torch.sigmoid(own_z)
    others = rows.scatter(1, own, float("-inf"))  # the loss of a class at -inf is 0, and so is its slope
    margin_of_background = _with_slack(own_score, slack) if gamma_background else None
    margin_of_target = None
    if gamma_target:
        margin_of_target = _with_slack(torch.sigmoid(others.amax(1, keepdim=True)), slack)
    of_background, gradient = _of_class(others, torch.sigmoid(others), margin_of_background, gamma_background)
    of_target, own_slope = _of_class(own_z, own_score, margin_of_target, gamma_target)
    return of_background.sum(1).add_(of_target.squeeze(1)), gradient.scatter_(1, own, own_slope.neg_())


def _of_class(z: Tensor, score: Tensor, margin: Tensor | None, gamma: float) -> tuple[Tensor, Tensor]:
    """The loss of every class and its derivative by z = logit(score); `margin` is None for gamma 0."""
    if margin is None:
        return _softplus(z), score
    base = score + margin
    factor = base**gamma
    loss = _softplus(z).mul_(factor)
    steepness = torch.div(loss, base, out=base).mul_(gamma)
    slope = torch.ops.aten.sigmoid_backward(steepness, score)  # steepness * score * (1 - score)
    return loss, slope.addcmul_(factor, score)
