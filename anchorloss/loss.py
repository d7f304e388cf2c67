# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: 2026 the maintainers of this repository
"""Anchor loss: Equations 1 to 4 of the supplement of Ryou, Jeong and Perona, ICCV 2019.

This file needs nothing but torch and may be copied into another project. With x = logits, q = sigmoid(x) and target
probabilities p, the loss of a sample is Eq. 1 summed over its classes:

    p * (1 - q + q_pos) ** gamma_t * -log(q)  +  (1 - p) * (1 + q - q_neg) ** gamma_b * -log(1 - q)

q_pos is the largest score of a background class (Eq. 2) and q_neg the score of the target class (Eq. 3). Both terms are
one function of z, with z = -x in the first and z = x in the second:

    (sigmoid(z) + margin) ** gamma * softplus(z)

The margin is q_pos in the first term and 1 - q_neg in the second, because 1 - q + q_pos = sigmoid(-x) + q_pos and
1 + q - q_neg = sigmoid(x) + sigmoid(-x_target). Nothing cancels here, so saturated logits keep their precision. With
base = sigmoid(z) + margin, the derivative by z for a fixed margin is

    base ** gamma * (gamma * softplus(z) / base * sigmoid(z) * (1 - sigmoid(z)) + sigmoid(z))

and is finite: where base is small, softplus(z) is no larger.

`_losses` computes the loss in differentiable operations. `_LossAndGradient` computes the same loss together with its
gradient in fewer passes over the logits, and is what training uses; `_CompiledLoss` does so in compiled code. Second
derivatives, torch.func, forward-mode differentiation, torch.export and anchors that carry gradients use `_losses`.

Beyond the paper, whose targets are single classes, this file defines the loss for probabilities, class weights, ignored
samples and label smoothing; see `anchor_loss`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ANCHORS = ("none", "target", "background", "both")
REDUCTIONS = ("none", "mean", "sum")
IGNORE_INDEX = -100  # the default of torch's losses
INTEGERS = (
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
)


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
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    ignore_index: int = IGNORE_INDEX,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Anchor loss on sigmoid binary cross entropy, summed over classes.

    With probabilities as the target, p of Eq. 1 is the target as given; classes with p > 0 are positives, those with
    p = 0 backgrounds. q_pos is then the largest score of a background and q_neg the smallest score of a positive, so
    that a one-hot target gives Eq. 2 and 3. Where a sample has no background (or no positive), there is no q_pos (or
    q_neg), and the terms that need it are not modulated. This is an extension: the paper has one target class only.

    Args:
        logits: (N, C), (N, C, d1, ...) or (C,), floating point; half precision is computed in float32.
        target: class indices of any integer dtype, (N,), (N, d1, ...) or (), or probabilities in [0, 1], floating
            point and of the shape of `logits`: one-hot, multi-hot, mixup.
        gamma: Exponent of the modulating factors. 0 is binary cross entropy; in eager mode bit for bit, but for dense
            predictions with ignored samples.
        anchor: "none" (binary cross entropy), "target" (i, Eq. 2), "background" (ii, Eq. 3) or "both" (iii, Eq. 4).
        slack: Added to q_pos and taken from q_neg, which are then clamped to [0, 1], as in the authors' code. The
            equations have none.
        reduction: "mean" or "sum" over samples, or "none".
        detach: Keep gradients out of the anchors, as the authors' code does.
        gamma_target: Replaces `gamma` in the first term of Eq. 1. `anchor` still decides which terms are modulated.
        gamma_background: Replaces `gamma` in the second term.
        weight: (C,), scales both terms of a class. The mean is over samples whatever the weights.
        pos_weight: (C,), scales the first term of a class, as in `binary_cross_entropy_with_logits`.
        ignore_index: Samples (pixels) with this class index cost 0, have zero gradient and do not count in the mean.
            The mean over no samples at all is 0.
        label_smoothing: In [0, 1], for class indices. p becomes (1 - label_smoothing) * one_hot + label_smoothing / C;
            the anchors are still those of the one-hot target.

    Returns:
        float32 or float64; a scalar, or with reduction "none" one loss a sample, (N,), (N, d1, ...) or ().

    Raises:
        ValueError: An argument is out of range or a shape does not fit.
        TypeError: A tensor has the wrong dtype.
        IndexError: A class index is out of range. Values of `target` are checked on the CPU only, since elsewhere the
            check would wait for the device, and not in compiled code or under torch.func.
    """
    gammas = _check_numbers(gamma, anchor, slack, gamma_target, gamma_background, label_smoothing, reduction)
    shape = _check_tensors(logits, target)
    rows, target = _as_rows(logits, target)
    target_index = ignored = probabilities = None
    if not target.is_floating_point():
        target_index, ignored = _without_ignored(target.unsqueeze(1), rows.shape[1], ignore_index)
    elif label_smoothing or ignore_index != IGNORE_INDEX:
        name = "label_smoothing" if label_smoothing else "ignore_index"
        raise ValueError(
            f"{name} needs class indices; target holds probabilities, which can express it themselves"
        )
    else:
        _check_probabilities(target)
        probabilities = target.to(rows.dtype)
    weight, pos_weight = _of_classes("weight", weight, rows), _of_classes("pos_weight", pos_weight, rows)
    given = _Given(target_index, ignored, probabilities, weight, pos_weight, *gammas, slack, label_smoothing)
    losses = None
    fused = (detach or not given.modulates) and not given.requires_grad
    if torch.compiler.is_compiling():
        # An exported program is differentiated later, operation by operation.
        if fused and not torch.compiler.is_exporting() and not _is_transformed():
            losses = _CompiledLoss.apply(rows, given, reduction)
    # Logits (N, C) without modulation keep the bits of torch's binary cross entropy, on every device.
    elif fused and (given.modulates or (ignored is not None and rows.ndim > 2)):
        try:
            losses = _LossAndGradient.apply(rows, given, reduction)
        except RuntimeError:
            # torch.func and forward-mode differentiation refuse a Function without `setup_context` and `jvp`, before
            # anything is computed. One with `setup_context` takes as much time a call as the loss of 128 samples.
            # Any other error is raised again below.
            losses = None
    if losses is None:
        losses = _reduced(_losses(rows, given, detach), ignored, reduction)
    return losses.reshape(shape) if reduction == "none" else losses


class AnchorLoss(nn.Module):
    """`anchor_loss` as a module, with the same arguments; `weight` and `pos_weight` are buffers."""

    weight: Tensor | None
    pos_weight: Tensor | None

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
        weight: Tensor | None = None,
        pos_weight: Tensor | None = None,
        ignore_index: int = IGNORE_INDEX,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        _check_numbers(gamma, anchor, slack, gamma_target, gamma_background, label_smoothing, reduction)
        self.gamma = gamma
        self.anchor = anchor
        self.slack = slack
        self.reduction = reduction
        self.detach = detach
        self.gamma_target = gamma_target
        self.gamma_background = gamma_background
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

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
            weight=self.weight,
            pos_weight=self.pos_weight,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
        )

    def extra_repr(self) -> str:
        """The arguments that are not the defaults."""
        shown = []
        for name, parameter in inspect.signature(AnchorLoss).parameters.items():
            value = getattr(self, name)
            if isinstance(value, Tensor):
                shown.append(f"{name}=tensor of {tuple(value.shape)}")
            elif value != parameter.default:
                shown.append(f"{name}={value!r}")
        return ", ".join(shown)


def modulation(
    logits: Tensor,
    target: Tensor,
    gamma: float = 0.5,
    anchor: str = "background",
    slack: float = 0.0,
    *,
    gamma_target: float | None = None,
    gamma_background: float | None = None,
    ignore_index: int = IGNORE_INDEX,
) -> tuple[Tensor, Tensor]:
    """The modulating factors of Eq. 1 for class indices, for inspection; detached.

    Args:
        logits: As for `anchor_loss`.
        target: Class indices, as for `anchor_loss`.
        gamma: As for `anchor_loss`, like the arguments after it.

    Returns:
        The factor of the target class, with the shape of `target`, and those of the background classes, with the shape
        of `logits` and 1 at the target. The factors of ignored samples are 1.

    Raises:
        ValueError, TypeError, IndexError: As `anchor_loss`; TypeError for probabilities, too.
    """
    gammas = _check_numbers(gamma, anchor, slack, gamma_target, gamma_background)
    shape = _check_tensors(logits, target)
    if target.is_floating_point():
        raise TypeError("modulation needs class indices, but target holds probabilities")
    rows, target = _as_rows(logits.detach(), target)
    target_index, ignored = _without_ignored(target.unsqueeze(1), rows.shape[1], ignore_index)
    given = _Given(target_index, ignored, None, None, None, *gammas, slack, 0.0)
    in_target, in_background = _modulations(rows, given)
    target_factor = _factor(torch.sigmoid(-rows.gather(1, target_index)), in_target)
    background_factor = _factor(torch.sigmoid(rows), in_background).scatter(1, target_index, 1.0)
    if ignored is not None:
        target_factor = target_factor.masked_fill(ignored, 1.0)
        background_factor = background_factor.masked_fill(ignored, 1.0)
    return target_factor.reshape(shape), background_factor.reshape(logits.shape)


class _Given(NamedTuple):
    """What is given besides the logits, (samples, C) or (N, C, samples).

    What has one entry a sample keeps the axis of the classes, with length 1. A gamma is 0 if its term is not modulated.
    """

    target_index: Tensor | None  # class indices, one a sample
    ignored: Tensor | None  # mask of samples; their class index is 0
    probabilities: Tensor | None  # with the shape of the logits, in place of class indices
    weight: Tensor | None  # (C,) or (C, 1)
    pos_weight: Tensor | None
    gamma_target: float
    gamma_background: float
    slack: float
    label_smoothing: float

    @property
    def modulates(self) -> bool:
        """Whether this is more than binary cross entropy."""
        return bool(self.gamma_target or self.gamma_background)

    @property
    def one_hot_index(self) -> Tensor | None:
        """The class indices if p is one-hot, so that every class has one of the two terms of Eq. 1 alone."""
        return None if self.label_smoothing else self.target_index

    @property
    def requires_grad(self) -> bool:
        """Whether anything here but the logits wants a gradient."""
        for tensor in (self.probabilities, self.weight, self.pos_weight):
            if tensor is not None and tensor.requires_grad:
                return True
        return False

    @property
    def target_weight(self) -> Tensor | None:
        """What scales the first term of a class; `weight` alone scales the second."""
        if self.weight is None or self.pos_weight is None:
            return self.weight if self.pos_weight is None else self.pos_weight
        return self.weight * self.pos_weight

    def p(self, rows: Tensor) -> Tensor:
        """p of Eq. 1."""
        if self.target_index is None:
            assert self.probabilities is not None
            return self.probabilities
        rest = self.label_smoothing / rows.shape[1]
        return torch.full_like(rows, rest).scatter(1, self.target_index, 1 - self.label_smoothing + rest)


class _Modulation(NamedTuple):
    """What modulates one term of Eq. 1: one margin a sample, and a mask of samples whose factor is 1 all the same."""

    gamma: float
    margin: Tensor
    missing: Tensor | None = None  # None: no sample


_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_UNMODULATED = _Modulation(0.0, torch.empty(0))


def _check_numbers(
    gamma: float,
    anchor: str,
    slack: float,
    gamma_target: float | None,
    gamma_background: float | None,
    label_smoothing: float = 0.0,
    reduction: str = "none",
) -> tuple[float, float]:
    """Check the arguments that are not tensors; return gamma_t and gamma_b of Eq. 1."""
    if anchor not in ANCHORS:
        raise ValueError(f"anchor must be one of {', '.join(ANCHORS)}, not {anchor!r}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, not {reduction!r}")
    if not 0 <= slack <= 1:
        raise ValueError(f"slack must be from 0 to 1, not {slack}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be from 0 to 1, not {label_smoothing}")
    gamma_t = gamma if gamma_target is None else gamma_target
    gamma_b = gamma if gamma_background is None else gamma_background
    for value in (gamma, gamma_t, gamma_b):
        if not 0 <= value < float("inf"):
            raise ValueError(f"gamma must be finite and not negative, not {value}")
    return float(gamma_t) * (anchor in ("target", "both")), float(gamma_b) * (
        anchor in ("background", "both")
    )


def _check_tensors(logits: Tensor, target: Tensor) -> torch.Size:
    """Check dtypes and shapes; return the shape of the losses, one a sample."""
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, not {logits.dtype}; use logits.float()")
    ndim = logits.ndim
    shape = logits.shape[:1] + logits.shape[2:] if ndim > 2 else logits.shape[: ndim - 1]
    if ndim and target.shape == logits.shape:
        if not target.is_floating_point():
            raise ValueError(
                f"target must be {tuple(shape)} for class indices; with the shape of the logits it holds probabilities, "
                f"which are floating point, not {target.dtype}; use target.to(logits.dtype)"
            )
    elif not ndim or target.shape != shape:
        raise ValueError(
            f"target must be {tuple(shape)} (class indices) or {tuple(logits.shape)} (probabilities) for logits "
            f"{tuple(logits.shape)}, not {tuple(target.shape)}; the classes are axis 1 of the logits, or axis 0 of (C,)"
        )
    elif target.is_floating_point():
        raise TypeError("target holds floating-point class indices; use target.long()")
    elif target.dtype not in INTEGERS:
        raise TypeError(
            f"target must hold class indices of an integer dtype, not {target.dtype}; use target.long()"
        )
    classes = logits.shape[1 if ndim > 1 else 0]
    if classes < 2:
        raise ValueError(
            f"logits must have at least two classes, not {classes}; give yes and no a logit each"
        )
    return shape


def _as_rows(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (samples, C) or (N, C, samples) in float32 or float64, and the target to match, indices in int64."""
    if logits.ndim == 1:
        logits, target = logits[None], target[None]
    elif logits.ndim > 3:
        logits, target = logits.flatten(2), target.flatten(target.ndim - logits.ndim + 2)
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return logits, target if target.is_floating_point() or target.dtype == torch.int64 else target.long()


def _can_be_read(tensor: Tensor) -> bool:
    """Whether Python may look at values without waiting for a device."""
    return tensor.is_cpu and not torch.compiler.is_compiling()


def _extremes(target: Tensor) -> tuple[float, float] | None:
    """The least and greatest value; None if they cannot be read at once."""
    if not _can_be_read(target) or not target.numel():
        return None
    try:
        least, greatest = torch.aminmax(target)
        return least.item(), greatest.item()
    except RuntimeError:  # under vmap
        return None


def _without_ignored(target: Tensor, classes: int, ignore_index: int) -> tuple[Tensor, Tensor | None]:
    """Class indices with 0 in place of ignored ones, and a mask of those; None if it is known that there are none."""
    extremes = _extremes(target)
    if extremes is not None and extremes[0] >= 0 and extremes[1] < classes:
        if not extremes[0] <= ignore_index <= extremes[1]:
            return target, None
        extremes = None
    ignored = target == ignore_index
    target = target.masked_fill(ignored, 0)
    if extremes is not None:
        for label in _extremes(target) or ():
            if not 0 <= label < classes:
                raise IndexError(
                    f"target holds class {label}, out of bounds for {classes} classes (0 to {classes - 1}); "
                    f"correct it, or leave such samples out with ignore_index={label}"
                )
    return target, ignored


def _check_probabilities(target: Tensor) -> None:
    extremes = _extremes(target.detach())
    if extremes is not None and not (extremes[0] >= 0 and extremes[1] <= 1):
        raise ValueError(
            f"target holds values from {extremes[0]:g} to {extremes[1]:g}; probabilities are from 0 to 1 "
            "(for logits of a teacher use torch.sigmoid or torch.softmax)"
        )


def _of_classes(name: str, weight: Tensor | None, rows: Tensor) -> Tensor | None:
    """A weight of the classes in the dtype of `rows`, with axes to multiply them by."""
    if weight is None:
        return None
    if weight.shape != rows.shape[1:2]:
        raise ValueError(
            f"{name} must have shape ({rows.shape[1]},), one entry a class, not {tuple(weight.shape)}"
        )
    weight = weight.to(rows.dtype)
    return weight if rows.ndim == 2 else weight.unsqueeze(1)


def _reduced(losses: Tensor, ignored: Tensor | None, reduction: str) -> Tensor:
    if reduction == "none":
        return losses
    if reduction == "mean" and ignored is None and losses.numel():
        return losses.mean()
    return losses.sum() if reduction == "sum" else losses.sum() / _count(losses.numel(), ignored)


def _count(samples: int, ignored: Tensor | None) -> Tensor | int:
    """Over how many samples the mean is; 1 if there is none, so that their mean is 0."""
    return samples or 1 if ignored is None else ignored.logical_not().sum().clamp_min(1)


def _modulations(rows: Tensor, given: _Given) -> tuple[_Modulation, _Modulation]:
    """What modulates the two terms of Eq. 1."""
    target_index, p = given.target_index, given.probabilities
    in_target, in_background, missing = _UNMODULATED, _UNMODULATED, None
    if given.gamma_target:
        if target_index is not None:
            others = rows.scatter(1, target_index, -torch.inf)
        elif p is not None:
            others, missing = rows.masked_fill(p > 0, -torch.inf), (p > 0).all(1, keepdim=True)
        q_pos = torch.sigmoid(others.amax(1, keepdim=True))
        in_target = _Modulation(given.gamma_target, _with_slack(q_pos, given.slack), missing)
    if given.gamma_background:
        if target_index is not None:
            weakest = rows.gather(1, target_index)
        elif p is not None:
            weakest = rows.masked_fill(p == 0, torch.inf).amin(1, keepdim=True)
            missing = (p == 0).all(1, keepdim=True)
        margin = _with_slack(torch.sigmoid(-weakest), given.slack)
        in_background = _Modulation(given.gamma_background, margin, missing)
    return in_target, in_background


def _with_slack(margin: Tensor, slack: float) -> Tensor:
    """At most 1, as in the authors' code, and never 0: the base needs a finite power gamma - 1."""
    tiny = torch.finfo(margin.dtype).tiny
    return (margin + slack).clamp(tiny, 1.0) if slack else margin.clamp_min(tiny)


def _softplus(z: Tensor) -> Tensor:
    """log(1 + exp(z)); beyond 80, where exp would overflow, it is z in every type. torch's own default is 20."""
    return F.softplus(z, threshold=80.0)


def _base(score: Tensor, modulation: _Modulation) -> Tensor:
    """The base of the modulating factor, from score = sigmoid(z)."""
    base = score + modulation.margin
    return base if modulation.missing is None else base.masked_fill(modulation.missing, 1.0)


def _factor(score: Tensor, modulation: _Modulation) -> Tensor:
    """The modulating factor, from score = sigmoid(z)."""
    return _base(score, modulation) ** modulation.gamma if modulation.gamma else torch.ones_like(score)


def _modulated(z: Tensor, modulation: _Modulation) -> Tensor:
    """The loss of every class, in differentiable operations."""
    return _factor(torch.sigmoid(z), modulation) * _softplus(z) if modulation.gamma else _softplus(z)


def _losses(rows: Tensor, given: _Given, detach: bool) -> Tensor:
    """The losses of the samples, in differentiable operations."""
    target_index, ignored, weight = given.one_hot_index, given.ignored, given.weight
    if ignored is not None:
        rows = rows.masked_fill(ignored, 0.0)
    if not given.modulates:
        losses = F.binary_cross_entropy_with_logits(
            rows, given.p(rows), weight, pos_weight=given.pos_weight, reduction="none"
        ).sum(1, keepdim=True)
    else:
        in_target, in_background = _modulations(rows.detach() if detach else rows, given)
        background_loss = _modulated(rows, in_background)
        if weight is not None:
            background_loss = background_loss * weight
        target_weight = given.target_weight
        if target_index is not None:
            target_loss = _modulated(-rows.gather(1, target_index), in_target)
            if target_weight is not None:
                target_loss = target_loss * target_weight.flatten()[target_index]
            losses = background_loss.scatter(1, target_index, target_loss).sum(1, keepdim=True)
        else:
            target_loss = _modulated(-rows, in_target)
            if target_weight is not None:
                target_loss = target_loss * target_weight
            p = given.p(rows)
            losses = (p * target_loss + (1 - p) * background_loss).sum(1, keepdim=True)
    return losses if ignored is None else losses.masked_fill(ignored, 0.0)


class _LossAndGradient(torch.autograd.Function):
    """The reduced `_losses` with detached anchors; their gradient is computed along with them and kept."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, given: _Given, reduction: str) -> Tensor:
        losses, grad_logits = _in_blocks(rows, given)
        if given.ignored is not None:
            # `backward` multiplies by 0, which is enough where the gradient is finite. masked_fill costs more.
            if not _can_be_read(losses) or not losses.isfinite().all():
                grad_logits.masked_fill_(given.ignored, 0.0)
            losses.masked_fill_(given.ignored, 0.0)
        ctx.given, ctx.reduction, ctx.samples, ctx.grad_logits = given, reduction, losses.numel(), grad_logits
        ctx.save_for_backward(rows)
        return _reduced(losses, given.ignored, reduction)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        ignored = ctx.given.ignored
        if torch.is_grad_enabled():  # a second derivative is wanted
            (rows,) = ctx.saved_tensors
            losses = _reduced(_losses(rows, ctx.given, detach=True), ignored, ctx.reduction)
            (grad_logits,) = torch.autograd.grad(losses, rows, grad_output, create_graph=True)
            return grad_logits, None, None
        # The kept gradient is scaled in place and given away. If the graph is used again, it is computed again.
        grad_logits, ctx.grad_logits = ctx.grad_logits, None
        if grad_logits is None:
            (rows,) = ctx.saved_tensors
            _, grad_logits = _in_blocks(rows, ctx.given)
            if ignored is not None:
                grad_logits.masked_fill_(ignored, 0.0)
        if ctx.reduction == "mean":
            grad_output = grad_output / _count(ctx.samples, ignored)
        if ignored is not None:
            grad_output = grad_output.masked_fill(ignored, 0.0)
        try:
            return grad_logits.mul_(grad_output), None, None
        except RuntimeError:  # many backward passes at once, `is_grads_batched`
            return grad_logits * grad_output, None, None


class _CompiledLoss(torch.autograd.Function):
    """`_LossAndGradient` for a compiler, which cuts blocks and frees memory by itself.

    It has no second derivative. torch.compile refuses to differentiate twice outside torch.func, with the exception of
    its debugging backend "eager".
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, given: _Given, reduction: str) -> Tensor:
        ctx.ignored, ctx.reduction = given.ignored, reduction
        losses, grad_logits = _computed(rows, given, None, one_exponential=False)
        if given.ignored is not None:
            losses = losses.masked_fill(given.ignored, 0.0)
        ctx.save_for_backward(grad_logits)
        return _reduced(losses, given.ignored, reduction)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        (grad_logits,) = ctx.saved_tensors
        if ctx.reduction == "mean":
            grad_output = grad_output / _count(grad_logits.numel() // grad_logits.shape[1], ctx.ignored)
        grad_logits = grad_logits * grad_output
        if ctx.ignored is not None:
            grad_logits = grad_logits.masked_fill(ctx.ignored, 0.0)
        return grad_logits, None, None


class _Probe(torch.autograd.Function):
    """Does nothing. torch.func refuses it, like every Function without `setup_context`."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        return grad_output


@torch.compiler.assume_constant_result
def _is_transformed() -> bool:
    """Whether a compiler is tracing under torch.func, which may ask for second derivatives or for vmap."""
    try:
        _Probe.apply(torch.empty(0))
    except RuntimeError:
        return True
    return False


def _in_blocks(rows: Tensor, given: _Given) -> tuple[Tensor, Tensor]:
    """`_losses_and_gradient`, of so many samples at a time that the temporaries need little memory.

    On a CPU logits (samples, C) gain from staying in a cache, and dense predictions from enough work for every thread.
    """
    at_once = 2**20
    if rows.is_cpu:
        at_once = 2**16 if rows.ndim == 2 else 2**19 * min(2, torch.get_num_threads())
    if given.one_hot_index is None:
        at_once //= 2
    if rows.numel() <= at_once:
        return _losses_and_gradient(rows, given)
    losses, grad_logits = torch.empty_like(rows[:, :1]), torch.empty_like(rows)
    for block in _blocks(rows.shape, at_once):
        part = given._replace(
            target_index=None if given.target_index is None else given.target_index[block],
            probabilities=None if given.probabilities is None else given.probabilities[block],
        )
        losses[block], _ = _losses_and_gradient(rows[block], part, grad_logits[block])
    return losses, grad_logits


def _blocks(shape: torch.Size, at_once: int) -> Iterator[tuple[Any, ...]]:
    """Indices that cut logits of this shape, and what goes with them, into blocks of about `at_once` logits."""
    width = max(1, at_once // shape[1])
    if len(shape) == 2:
        for row in range(0, shape[0], width):
            yield (slice(row, row + width),)
    else:
        height = max(1, width // shape[2])
        for row in range(0, shape[0], height):
            for column in range(0, shape[2], width):
                yield slice(row, row + height), ..., slice(column, column + width)


def _losses_and_gradient(rows: Tensor, given: _Given, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The losses of the samples and their gradient, with the shape of `rows`, written to `out` if given.

    For dense float32 predictions on a CPU, sigmoid and softplus are computed from one exponential: faster, with another
    rounding. Logits (samples, C) keep torch's functions, so that recorded trainings can be repeated bit for bit.
    """
    if rows.ndim > 2 and rows.dtype == torch.float32 and _can_be_read(rows):
        losses, grad_logits = _computed(rows, given, out, one_exponential=True)
        if losses.isfinite().all():  # no exponential has overflowed
            return losses, grad_logits
    return _computed(rows, given, out, one_exponential=False)


def _computed(
    rows: Tensor, given: _Given, out: Tensor | None, one_exponential: bool
) -> tuple[Tensor, Tensor]:
    if given.one_hot_index is None:
        return _for_probabilities(rows, given, out, one_exponential)
    return _for_class_indices(rows, given, given.one_hot_index, out, one_exponential)


def _for_class_indices(
    rows: Tensor, given: _Given, target_index: Tensor, out: Tensor | None, one_exponential: bool
) -> tuple[Tensor, Tensor]:
    """Every class has one of the two terms alone."""
    in_target, in_background = _UNMODULATED, _UNMODULATED
    target_z = -rows.gather(1, target_index)
    target_score = torch.sigmoid(target_z)  # 1 - q_neg
    if one_exponential:
        score, softplus = _from_exponential(torch.exp(rows).scatter_(1, target_index, 0.0))
        if given.gamma_target:
            in_target = _Modulation(given.gamma_target, _with_slack(score.amax(1, keepdim=True), given.slack))
    else:
        others = rows.scatter(1, target_index, -torch.inf)
        score, softplus = torch.sigmoid(others), _softplus(others)
        if given.gamma_target:
            q_pos = torch.sigmoid(others.amax(1, keepdim=True))
            in_target = _Modulation(given.gamma_target, _with_slack(q_pos, given.slack))
    if given.gamma_background:
        in_background = _Modulation(given.gamma_background, _with_slack(target_score, given.slack))
    background_loss, grad_logits = _loss_and_slope(score, softplus, in_background, out)
    target_loss, target_slope = _loss_and_slope(target_score, _softplus(target_z), in_target)
    if given.weight is not None:
        background_loss.mul_(given.weight)
        grad_logits.mul_(given.weight)
    target_weight = given.target_weight
    if target_weight is not None:
        target_weight = target_weight.flatten()[target_index]
        target_loss.mul_(target_weight)
        target_slope.mul_(target_weight)
    losses = background_loss.sum(1, keepdim=True).add_(target_loss)
    return losses, grad_logits.scatter_(1, target_index, target_slope.neg_())


def _for_probabilities(
    rows: Tensor, given: _Given, out: Tensor | None, one_exponential: bool
) -> tuple[Tensor, Tensor]:
    """Every class may have both terms, as with smoothed labels."""
    in_target, in_background = _modulations(rows, given)
    target_loss, target_slope = _loss_and_slope(*_score_and_softplus(-rows, one_exponential), in_target)
    background_loss, background_slope = _loss_and_slope(
        *_score_and_softplus(rows, one_exponential), in_background
    )
    p, weight, target_weight = given.p(rows), given.weight, given.target_weight
    of_target = p if target_weight is None else p * target_weight
    of_background = 1 - p if weight is None else (1 - p) * weight
    losses = target_loss.mul_(of_target).add_(background_loss.mul_(of_background)).sum(1, keepdim=True)
    return losses, torch.sub(background_slope.mul_(of_background), target_slope.mul_(of_target), out=out)


def _from_exponential(exponential: Tensor) -> tuple[Tensor, Tensor]:
    """sigmoid(z) and softplus(z) from exp(z), which is overwritten."""
    score = exponential + 1
    torch.div(exponential, score, out=score)
    return score, exponential.log1p_()


def _score_and_softplus(z: Tensor, one_exponential: bool) -> tuple[Tensor, Tensor]:
    """sigmoid(z) and softplus(z)."""
    return _from_exponential(torch.exp(z)) if one_exponential else (torch.sigmoid(z), _softplus(z))


def _loss_and_slope(
    score: Tensor, softplus: Tensor, modulation: _Modulation, out: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The loss of every class and its derivative by z, the latter in `out` if given; overwrites its arguments."""
    if not modulation.gamma:
        return softplus, score if out is None else out.copy_(score)
    base = _base(score, modulation)
    factor = base**modulation.gamma
    loss = softplus.mul_(factor)
    if score.ndim == 2:  # rounded as in recorded trainings
        steepness = torch.div(loss, base, out=base).mul_(modulation.gamma)
        slope = _sigmoid_backward(steepness, score, grad_input=base)  # steepness * score * (1 - score)
        if modulation.missing is not None:
            slope.masked_fill_(modulation.missing, 0.0)
        return loss, torch.addcmul(slope, factor, score, out=slope if out is None else out)
    slope = _sigmoid_backward(loss, score, grad_input=torch.empty_like(score))
    if modulation.missing is not None:
        slope.masked_fill_(modulation.missing, 0.0)
    return loss, torch.addcdiv(score.mul_(factor), slope, base, value=modulation.gamma, out=out)
