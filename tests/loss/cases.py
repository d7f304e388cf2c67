"""Logits and targets to test with, and Eq. 1 in loops over float64."""

from __future__ import annotations

import cmath

import torch

from anchorloss.loss import anchor_loss

ANCHORS = ("none", "target", "background", "both")
WEIGHT = (0.5, 2.0, 1.0, 0.0, 3.0)
POS_WEIGHT = (4.0, 0.25, 1.5, 2.0, 1.0)


def sample(samples: int = 4, classes: int = 5, scale: float = 3.0, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(1)
    logits = scale * torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    return logits.to(dtype), torch.randint(classes, (samples,), generator=generator)


def loss_and_gradient(logits, target, function=anchor_loss, **arguments):
    leaf = logits.clone().requires_grad_()
    loss = function(leaf, target, **arguments)
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    return loss.detach(), gradient


def equation_1(logits, p, positives, counts, gammas, slack, detach, weight, pos_weight):
    """The loss of one sample and its gradient, by a complex step, which loses no digits."""
    classes = range(len(logits))

    def score(logit):
        return 1 / (1 + cmath.exp(-logit))

    def loss(there):
        anchors = logits if detach else there
        backgrounds = [score(anchors[i]) for i in classes if counts[i] and not positives[i]]
        targets = [score(-anchors[i]) for i in classes if counts[i] and positives[i]]
        total = 0j
        for i in classes:
            factors = []
            for z, others, gamma in ((-there[i], backgrounds, gammas[0]), (there[i], targets, gammas[1])):
                largest = max(others, key=lambda value: value.real, default=0) + slack
                margin = largest if largest.real < 1 else 1
                factors.append((score(z) + margin) ** gamma if others else 1)
            of_target = pos_weight[i] * p[i] * factors[0] * -cmath.log(score(there[i]))
            of_background = (1 - p[i]) * factors[1] * -cmath.log(score(-there[i]))
            total += counts[i] * weight[i] * (of_target + of_background)
        return total

    step = 1e-30j
    moved = [loss([x + step * (i == k) for i, x in enumerate(logits)]) for k in classes]
    return loss([complex(x) for x in logits]).real, [value.imag / 1e-30 for value in moved]
