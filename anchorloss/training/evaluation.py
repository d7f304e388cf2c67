"""What is measured on the evaluation set: accuracies, loss, predictions, and how far the loss modulates."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from anchorloss.config.settings import LossSettings, RunSettings
from anchorloss.data.augmentation import normalize
from anchorloss.loss import modulation
from anchorloss.runs.folder import Predictions
from anchorloss.training.build import LossFunction, build_loss
from anchorloss.training.device_data import DeviceData
from anchorloss.training.precision import forward_pass, input_dtype

BATCH = 500


@dataclass(frozen=True)
class Evaluation(Predictions):
    """Predictions and what they are worth: `top1` and `top5` in percent, `loss` a sample, modulating `factors`."""

    top1: float
    top5: float
    loss: float
    factors: dict[str, float]


def evaluate(network: nn.Module, settings: RunSettings, data: DeviceData) -> Evaluation:
    """`measure` what the network predicts; nothing may still write to its weights."""
    logits = predict(network, data, settings.precision)
    return measure(logits, data.evaluation_labels, settings.loss, build_loss(settings.loss))


@torch.no_grad()
def predict(
    network: nn.Module, data: DeviceData, precision: str, stream: torch.cuda.Stream | None = None
) -> Tensor:
    """The logits of the evaluation images, float32 (M, C), by a network that is left in training mode.

    They are computed in `precision`, "bf16" or "fp32", on the CUDA `stream`, which may still be at it afterwards.
    """
    forward = forward_pass(network, data.device, precision)
    mean, std, dtype = data.dataset.mean, data.dataset.std, input_dtype(precision)
    network.eval()
    with torch.cuda.stream(stream):
        batches = data.evaluation_images.split(BATCH)
        logits = torch.cat([forward(normalize(batch, mean, std, dtype)) for batch in batches])
    network.train()
    if stream is not None:
        torch.cuda.current_stream(data.device).wait_stream(stream)
    return logits


@torch.no_grad()
def measure(logits: Tensor, target: Tensor, settings: LossSettings, loss: LossFunction) -> Evaluation:
    """What `logits` (N, C) are worth for `target` (N,); `loss` is what `settings` name.

    The rank of the target is the number of classes with a higher score, plus those of equal score and lower index: a
    network that gives every class the same score is not credited with all of them.
    """
    own = logits.gather(1, target[:, None])
    classes = torch.arange(logits.shape[1], device=logits.device)
    ahead = (logits > own) | ((logits == own) & (classes < target[:, None]))
    # A score that is not a number is ahead of nothing and behind nothing: such a network has ranked no target.
    rank = torch.where(own.squeeze(1).isnan(), logits.shape[1] - 1, ahead.sum(1))
    is_softmax = settings.function == "torch.nn.functional.cross_entropy"
    if settings.scores is not None:
        is_softmax = settings.scores == "softmax"
    scores = logits.softmax(1) if is_softmax else logits.sigmoid()
    return Evaluation(
        target=target.byte().cpu().numpy(),
        predicted=logits.argmax(1).byte().cpu().numpy(),
        target_rank=rank.byte().cpu().numpy(),
        confidence=scores.amax(1).half().cpu().numpy(),
        top1=100 * (int((rank == 0).sum()) / len(rank)),
        top5=100 * (int((rank < 5).sum()) / len(rank)),
        loss=float(loss(logits, target)),
        factors=_factors(settings, logits, target),
    )


def _factors(loss: LossSettings, logits: Tensor, target: Tensor) -> dict[str, float]:
    """Quantiles of the modulating factors of Eq. 1 at these logits; empty for a loss that has none."""
    if loss.function != "anchorloss.loss.anchor_loss" or loss.arguments.get("anchor") == "none":
        return {}
    known = inspect.signature(modulation).parameters
    arguments = {key: value for key, value in loss.arguments.items() if key in known}
    target_factor, background_factor = modulation(logits, target, **arguments)
    others = torch.ones_like(background_factor, dtype=torch.bool).scatter_(1, target[:, None], False)
    of_background = background_factor[others].cpu().double().numpy()
    of_target = target_factor.cpu().double().numpy()
    return {
        **{f"target_factor_q{q}": float(np.quantile(of_target, q / 100)) for q in (50, 90)},
        **{f"background_factor_q{q}": float(np.quantile(of_background, q / 100)) for q in (50, 90, 99)},
    }
