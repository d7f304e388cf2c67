# SPDX-License-Identifier: MIT
# SPDX-FileCopyrightText: 2026 the maintainers of this repository
"""Anchor loss: Equations 1 to 4 of the supplement of Ryou, Jeong and Perona, ICCV 2019.

This file needs nothing but torch and may be copied into another project. With x = logits, q = sigmoid(x) and target
probabilities p, the loss of a sample is Eq. 1 summed over its classes:

    p * (1 - q + q_pos) ** gamma_t * -log(q)  +  (1 - p) * (1 + q - q_neg) ** gamma_b * -log(1 - q)

q_pos is the largest score of a background class (Eq. 2) and q_neg the score of the target class (Eq. 3). Both terms are
(sigmoid(z) + margin) ** gamma * softplus(z): z = -x and margin = q_pos in the first, z = x and margin = 1 - q_neg in the
second, because 1 - q = sigmoid(-x). Nothing cancels here, so saturated logits keep their precision.

`_losses` is this formula, for autograd to differentiate. `_Blockwise` takes large logits through it in blocks of samples,
with less memory and in less time. Probabilities, masks, class weights, ignored samples and label smoothing are extensions
of the paper; see `anchor_loss`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from itertools import repeat
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Anchor: TypeAlias = Literal["none", "target", "background", "both"]
Reduction: TypeAlias = Literal["none", "mean", "sum"]
ANCHORS: tuple[Anchor, ...] = get_args(Anchor)
REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)
IGNORE_INDEX = -100  # the default of torch's losses
BLOCK = 2**18  # logits that are computed at a time on a CPU; on an accelerator, four times as many
_Maybe: TypeAlias = Tensor | None
# A gamma, the margin of each sample, and a mask of samples that have none, so that their factor is 1.
_Modulation: TypeAlias = tuple[float, Tensor, _Maybe] | None


def anchor_loss(
    logits: Tensor,
    target: Tensor,
    gamma: float = 0.5,
    anchor: Anchor = "background",
    slack: float = 0.0,
    reduction: Reduction = "mean",
    *,
    detach: bool = True,
    gamma_target: float | None = None,
    gamma_background: float | None = None,
    weight: Tensor | None = None,
    pos_weight: Tensor | float | None = None,
    ignore_index: int = IGNORE_INDEX,
    label_smoothing: float = 0.0,
    positive_threshold: float = 0.0,
    mask: Tensor | None = None,
) -> Tensor:
    """Anchor loss on sigmoid binary cross entropy, summed over classes.

    With probabilities as the target, p of Eq. 1 is the target as given; classes with p > 0 are positives, those with
    p = 0 backgrounds. q_pos is then the largest score of a background and q_neg the smallest score of a positive, so
    that a one-hot target gives Eq. 2 and 3. Where a sample has no background (or no positive), there is no q_pos (or
    q_neg), and the terms that need it are not modulated. This is an extension: the paper has one target class only.

    Args:
        logits: (N, C), (N, C, d1, ...) or (C,), with the classes on axis 1 as for `cross_entropy`; floating point, half
            precision is computed in float32.
        target: Class indices of any integer dtype, (N,), (N, d1, ...) or (), or probabilities in [0, 1], floating
            point and of the shape of `logits`, except (C,): one-hot, multi-hot, mixup.
        gamma: Exponent of the modulating factors. 0 is binary cross entropy.
        anchor: "none" (binary cross entropy), "target" (i, Eq. 2), "background" (ii, Eq. 3) or "both" (iii, Eq. 4).
        slack: Added to q_pos and taken from q_neg, which are then clamped to [0, 1], as in the authors' code.
        reduction: "mean" or "sum" over samples, or "none".
        detach: Keep gradients out of the anchors, as the authors' code does.
        gamma_target: Replaces `gamma` in the first term of Eq. 1. `anchor` still decides which terms are modulated.
        gamma_background: Replaces `gamma` in the second term.
        weight: (C,), scales both terms of a class. The mean is over samples whatever the weights.
        pos_weight: (C,) or a number, scales the first term, as in `binary_cross_entropy_with_logits`.
        ignore_index: Samples (pixels) with this class index cost 0, have zero gradient and do not count in the mean.
            The mean over no samples at all is 0.
        label_smoothing: In [0, 1], for class indices. p becomes (1 - label_smoothing) * one_hot + label_smoothing / C;
            the anchors are still those of the one-hot target.
        positive_threshold: In [0, 1]. Of probabilities, those above it are positives, the rest backgrounds; p does not
            change. Smoothed probabilities need one, since none of them is 0.
        mask: bool, broadcast to the logits; True where a class counts. Elsewhere it costs 0, has zero gradient and is no
            anchor, whatever logits and target hold. Samples in which no class counts do not count in the mean.

    Returns:
        float32 or float64; a scalar, or with reduction "none" one loss a sample, (N,), (N, d1, ...) or ().

    Raises:
        ValueError, TypeError: An argument, shape or dtype is wrong; or every p of the batch is above
            `positive_threshold` and below 1, which leaves nothing to modulate by.
        IndexError: A class index is out of range. Values of `target` are checked on the CPU only, since elsewhere the
            check would wait for the device, and not in compiled code or under vmap.

    Example:
        >>> logits = torch.tensor([[2.0, -1.0, 0.0], [0.0, 1.0, -2.0]], requires_grad=True)
        >>> loss = anchor_loss(logits, torch.tensor([0, 2]), gamma=0.5, anchor="background")
        >>> loss.backward()
        >>> round(loss.item(), 3)
        2.738
    """
    rule = _Rule(
        gamma, anchor, slack, detach, gamma_target, gamma_background, label_smoothing, positive_threshold
    ).checked(reduction)
    x, target, shape = _checked(logits, target)
    index = left_out = p = None
    if mask is not None:
        if mask.dtype != torch.bool:
            raise TypeError(f"mask must be bool, True where a class counts, not {mask.dtype}")
        left_out = ~mask.expand(logits.shape).reshape(x.shape)
    if target.is_floating_point():
        if label_smoothing or ignore_index != IGNORE_INDEX:
            name = "label_smoothing" if label_smoothing else "ignore_index"
            raise ValueError(f"{name} needs class indices; target holds probabilities, which can express it")
        values = target.detach() if left_out is None else target.detach().masked_fill(left_out, 0.5)
        least, greatest = _extremes(values) or (0.0, 1.0)
        if not (least >= 0 and greatest <= 1):
            raise ValueError(
                f"target holds values from {least:g} to {greatest:g}; probabilities are from 0 to 1 "
                "(for logits of a teacher use torch.sigmoid or torch.softmax)"
            )
        if positive_threshold < least and greatest < 1 and any(rule.gammas()):
            raise ValueError(
                f"target holds p from {least:g} to {greatest:g}, so that every class is a positive and no background is "
                "left; pass positive_threshold, above which p makes a class a positive (a little more than smoothing / "
                "classes for smoothed mixup)"
            )
        p = target.to(x.dtype)
    else:
        index, ignored = _without_ignored(target, x.shape[1], ignore_index)
        left_out = ignored if left_out is None else left_out if ignored is None else left_out | ignored
    weight, pos_weight = _of_classes("weight", weight, x), _of_classes("pos_weight", pos_weight, x)
    losses = _losses_of_any_size(rule, x, index, p, left_out, weight, pos_weight)
    if reduction == "mean":
        count = losses.numel() or 1 if left_out is None else (~left_out).any(1).sum().clamp_min(1)
        return losses.sum() / count
    return losses.sum() if reduction == "sum" else losses.reshape(shape)


_ARGUMENTS = {name: of.default for name, of in list(inspect.signature(anchor_loss).parameters.items())[2:-1]}


class AnchorLoss(nn.Module):
    """`anchor_loss` as a module, with the same arguments; tensors among them are buffers."""

    weight: Tensor | None
    pos_weight: Tensor | float | None

    def __init__(
        self,
        gamma: float = 0.5,
        anchor: Anchor = "background",
        slack: float = 0.0,
        reduction: Reduction = "mean",
        *,
        detach: bool = True,
        gamma_target: float | None = None,
        gamma_background: float | None = None,
        weight: Tensor | None = None,
        pos_weight: Tensor | float | None = None,
        ignore_index: int = IGNORE_INDEX,
        label_smoothing: float = 0.0,
        positive_threshold: float = 0.0,
    ) -> None:
        super().__init__()
        _Rule(
            gamma, anchor, slack, detach, gamma_target, gamma_background, label_smoothing, positive_threshold
        ).checked(reduction)
        self.gamma, self.gamma_target, self.gamma_background = gamma, gamma_target, gamma_background
        self.anchor, self.slack, self.reduction, self.detach = anchor, slack, reduction, detach
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing
        self.positive_threshold = positive_threshold
        self.register_buffer("weight", weight)
        if isinstance(pos_weight, Tensor):
            self.register_buffer("pos_weight", pos_weight)
        else:
            self.pos_weight = pos_weight

    def forward(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """`anchor_loss(logits, target, mask=mask)` with the module's arguments."""
        return anchor_loss(logits, target, **{name: getattr(self, name) for name in _ARGUMENTS}, mask=mask)

    def extra_repr(self) -> str:
        """The arguments that are not the defaults."""
        given = {name: getattr(self, name) for name in _ARGUMENTS}
        sizes = {name: f"tensor of {tuple(of.shape)}" for name, of in given.items() if isinstance(of, Tensor)}
        rest = {name: repr(of) for name, of in given.items() if name not in sizes and of != _ARGUMENTS[name]}
        return ", ".join(f"{name}={of}" for name, of in {**rest, **sizes}.items())


def modulation(
    logits: Tensor,
    target: Tensor,
    gamma: float = 0.5,
    anchor: Anchor = "background",
    slack: float = 0.0,
    *,
    gamma_target: float | None = None,
    gamma_background: float | None = None,
    ignore_index: int = IGNORE_INDEX,
) -> tuple[Tensor, Tensor]:
    """The modulating factors of Eq. 1 for class indices, for inspection; detached.

    Arguments and errors are those of `anchor_loss`; TypeError for probabilities, too.

    Returns:
        The factor of the target class, with the shape of `target`, and those of the background classes, with the shape
        of `logits` and 1 at the target. The factors of ignored samples are 1.
    """
    rule = _Rule(gamma, anchor, slack, True, gamma_target, gamma_background).checked()
    x, target, shape = _checked(logits.detach(), target)
    if target.is_floating_point():
        raise TypeError("modulation needs class indices, but target holds probabilities")
    index, ignored = _without_ignored(target, x.shape[1], ignore_index)
    in_target, in_background = _modulations(rule, x, index, None, None)
    of_target = _factor(-x.gather(1, index), in_target)
    of_background = _factor(x, in_background).scatter(1, index, 1.0)
    if ignored is not None:
        of_target = of_target.masked_fill(ignored, 1.0)
        of_background = of_background.masked_fill(ignored, 1.0)
    return of_target.reshape(shape), of_background.reshape(logits.shape)


class _Rule(NamedTuple):
    """The arguments that are no tensors."""

    gamma: float
    anchor: str
    slack: float
    detach: bool
    gamma_target: float | None
    gamma_background: float | None
    label_smoothing: float = 0.0
    positive_threshold: float = 0.0

    def checked(self, reduction: str = "none") -> _Rule:
        """This rule, unless an argument is out of range."""
        for name, given, known in (("anchor", self.anchor, ANCHORS), ("reduction", reduction, REDUCTIONS)):
            if given not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {given!r}")
        for name in ("slack", "label_smoothing", "positive_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, not {getattr(self, name)}")
        for value in (self.gamma, self.gamma_target, self.gamma_background):
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"gamma must be finite and not negative, not {value}")
        return self

    def gammas(self) -> tuple[float, float]:
        """gamma_t and gamma_b of Eq. 1; 0 for a term that is not modulated."""
        first = self.gamma if self.gamma_target is None else self.gamma_target
        second = self.gamma if self.gamma_background is None else self.gamma_background
        return first * (self.anchor in ("target", "both")), second * (self.anchor in ("background", "both"))


def _losses(
    rule: _Rule, x: Tensor, index: _Maybe, p: _Maybe, left_out: _Maybe, weight: _Maybe, pos_weight: _Maybe
) -> Tensor:
    """The losses of the samples, (N, 1, d1, ...), in differentiable operations.

    `x` is (N, C, d1, ...), `index` (N, 1, d1, ...), or `p` is given, of the shape of `x`; `left_out`, of one of these
    shapes, is what costs nothing; the weights are (C, 1, ...), without an axis for samples.
    """
    if left_out is not None:
        x = x.masked_fill(left_out, 0.0)  # it may hold anything
    is_modulated = any(rule.gammas())
    if index is not None and (rule.label_smoothing or not is_modulated):
        rest = rule.label_smoothing / x.shape[1]
        p = torch.full_like(x, rest).scatter(1, index, 1 - rule.label_smoothing + rest)
    if p is not None and not is_modulated:
        losses = F.binary_cross_entropy_with_logits(x, p, weight, pos_weight=pos_weight, reduction="none")
    else:
        in_target, in_background = _modulations(rule, x.detach() if rule.detach else x, index, p, left_out)
        losses = _modulated(x, in_background)
        if p is not None:  # every class has both terms
            of_target = _modulated(-x, in_target)
            losses = (p if pos_weight is None else p * pos_weight) * of_target + (1 - p) * losses
        elif index is not None:  # every class has one
            of_target = _modulated(-x.gather(1, index), in_target)
            of_target = of_target if pos_weight is None else of_target * pos_weight.flatten()[index]
            losses = losses.scatter(1, index, of_target)
        losses = losses if weight is None else losses * weight
    losses = losses if left_out is None else losses.masked_fill(left_out, 0.0)
    return losses.sum(1, keepdim=True)


def _modulations(rule: _Rule, x: Tensor, index: _Maybe, p: _Maybe, left_out: _Maybe) -> list[_Modulation]:
    """What modulates the two terms of Eq. 1. In terms of z, an anchor is the largest of the classes of the other term."""
    found: list[_Modulation] = [None, None]
    masked = left_out if left_out is not None and left_out.shape[1] > 1 else None
    for term, gamma in enumerate(rule.gammas()):
        if gamma:
            z = -x if term else x
            if masked is not None:
                z = z.masked_fill(masked, -torch.inf)
            if index is not None:
                z = z.gather(1, index) if term else z.scatter(1, index, -torch.inf)
            elif p is not None:
                is_positive = p > rule.positive_threshold
                z = z.masked_fill(~is_positive if term else is_positive, -torch.inf)
            z = z.amax(1, keepdim=True)
            missing = z == -torch.inf if index is None or masked is not None else None
            # At most 1, as in the authors' code, and never 0: the base needs a finite power gamma - 1.
            margin = (torch.sigmoid(z) + rule.slack).clamp(torch.finfo(z.dtype).tiny, 1.0)
            found[term] = gamma, margin, missing
    return found


def _factor(z: Tensor, modulation: _Modulation) -> Tensor:
    """(sigmoid(z) + margin) ** gamma."""
    if modulation is None:
        return torch.ones_like(z)
    gamma, margin, missing = modulation
    base = torch.sigmoid(z) + margin
    return (base if missing is None else base.masked_fill(missing, 1.0)) ** gamma


def _modulated(z: Tensor, modulation: _Modulation) -> Tensor:
    """(sigmoid(z) + margin) ** gamma * softplus(z)."""
    softplus = F.softplus(z, threshold=80.0)  # beyond it exp would overflow; torch's own default is 20
    return softplus if modulation is None else _factor(z, modulation) * softplus


def _losses_of_any_size(rule: _Rule, x: Tensor, *others: _Maybe) -> Tensor:
    """`_losses`, in blocks if the logits are many and no more is asked for than their gradient."""
    tensors = [tensor for tensor in (x, *others) if tensor is not None]
    at_once = BLOCK if x.is_cpu else 4 * BLOCK
    if (
        torch.compiler.is_compiling()
        or x.numel() <= at_once
        or not (torch.is_grad_enabled() and x.requires_grad)
        or any(tensor.requires_grad for tensor in tensors[1:])
        or any(type(tensor) not in (Tensor, nn.Parameter) for tensor in tensors)
    ):
        return _losses(rule, x, *others)
    apply: Callable[..., Tensor] = _Blockwise.apply
    try:
        return apply(math.ceil(x.numel() / at_once), rule, x, *others)
    except RuntimeError:
        # torch.func and forward-mode differentiation refuse a Function like this; other errors are raised again here.
        return _losses(rule, x, *others)


class _Blockwise(torch.autograd.Function):
    """`_losses`, a block of samples at a time. Of a block nothing is kept but losses and gradient."""

    @staticmethod
    def forward(ctx: Any, count: int, rule: _Rule, x: Tensor, *others: _Maybe) -> Tensor:
        losses, gradient = torch.empty_like(x[:, :1]), torch.empty_like(x)
        axis = 2 if x.ndim > 2 and x.shape[2] > x.shape[0] else 0
        blocks = [
            repeat(tensor) if tensor is None or tensor.ndim < x.ndim else tensor.chunk(count, axis)
            for tensor in (losses, gradient, x.detach(), *others)
        ]
        # The caller's hooks, such as those of activation checkpointing, are not for what autograd saves in a block.
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x):
            for loss, slope, own, *of_block in zip(*blocks, strict=False):
                value = _losses(rule, own.requires_grad_(), *of_block)
                slope.copy_(torch.autograd.grad(value, own, torch.ones_like(value))[0])
                loss.copy_(value.detach())
        ctx.rule = rule
        ctx.save_for_backward(gradient, x, *others)
        return losses

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        gradient, x, *others = ctx.saved_tensors
        if torch.is_grad_enabled():  # `create_graph`: the result is differentiated in turn
            losses = _losses(ctx.rule, x, *others)
            (gradient,) = torch.autograd.grad(losses, x, grad_outputs[0], create_graph=True)
        else:
            gradient = gradient * grad_outputs[0]
        return None, None, gradient, *(None for _ in others)


def _checked(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, torch.Size]:
    """Logits (N, C, ...) in float32 or float64, the target to match, and the shape of the losses, one a sample."""
    axis = min(logits.ndim - 1, 1)
    shape, is_soft = logits.shape[:axis] + logits.shape[axis + 1 :], target.is_floating_point()
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, not {logits.dtype}; use logits.float()")
    is_index = not (is_soft or target.is_complex() or target.dtype == torch.bool)
    if target.shape != (logits.shape if is_soft else shape) or not (is_index or (is_soft and axis)):
        hint = "classes are axis 1, as for cross_entropy; if yours are last, use logits.movedim(-1, 1)"
        if target.shape == shape:
            hint = "use target.long() for class indices"
        elif target.shape == logits.shape and axis:
            hint = "use target.to(logits.dtype) for probabilities"
        elif target.shape == logits.shape:
            hint = "for one sample use unsqueeze(0) on both; for samples of yes or no, give yes and no a logit each"
        raise (TypeError if target.shape == shape else ValueError)(
            f"target must be {tuple(shape)} (class indices of an integer dtype) or {tuple(logits.shape)} (floating-point "
            f"probabilities) for logits {tuple(logits.shape)}, not {tuple(target.shape)} of {target.dtype}; {hint}"
        )
    if not logits.ndim or logits.shape[axis] < 2:
        raise ValueError(
            f"logits {tuple(logits.shape)} hold fewer than two classes; give yes and no a logit each"
        )
    x = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    target = target if is_soft else target.long()
    return (x, target, shape) if axis else (x[None], target[None], shape)


def _extremes(values: Tensor) -> tuple[float, float] | None:
    """The least and greatest value; None if there is none, or if reading them would wait for a device."""
    if not values.is_cpu or torch.compiler.is_compiling() or not values.numel():
        return None
    try:
        least, greatest = torch.aminmax(values)
        return least.item(), greatest.item()
    except RuntimeError:  # under vmap
        return None


def _without_ignored(target: Tensor, classes: int, ignore_index: int) -> tuple[Tensor, Tensor | None]:
    """Class indices (N, 1, ...) with 0 in place of ignored ones, and a mask of those; None if it is known to be empty."""
    ignored = target.unsqueeze(1) == ignore_index
    index = target.unsqueeze(1).masked_fill(ignored, 0)
    extremes = _extremes(index)
    for label in extremes or ():
        if not 0 <= label < classes:
            raise IndexError(
                f"target holds class {label}, out of bounds for {classes} classes (0 to {classes - 1}); "
                f"correct it, or leave such samples out with ignore_index={label}"
            )
    return index, None if extremes is not None and not ignored.any() else ignored


def _of_classes(name: str, weight: Tensor | float | None, x: Tensor) -> Tensor | None:
    """A weight of the classes in the dtype of `x`, with axes to multiply it by."""
    if weight is None:
        return None
    weight = weight if isinstance(weight, Tensor) else x.new_full((x.shape[1],), weight)
    if weight.shape != x.shape[1:2]:
        raise ValueError(f"{name} must have shape ({x.shape[1]},), one a class, not {tuple(weight.shape)}")
    return weight.to(x.dtype).reshape(-1, *[1] * (x.ndim - 2))
