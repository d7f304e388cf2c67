"""What is measured on the evaluation set: accuracies, loss, predictions, and how far the loss modulates."""

from __future__ import annotations

import inspect
import io
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from anchorloss.data import augmentation
from anchorloss.data.dataset import Dataset
from anchorloss.loss import modulation
from anchorloss.training import losses
from anchorloss.training.trainer import Trainer

BATCH = 500


@dataclass(frozen=True)
class EvaluationImages:
    """The evaluation images, uint8 (N, 3, 32, 32), and labels, int64 (N,), on the device."""

    images: Tensor
    labels: Tensor

    @staticmethod
    def of(dataset: Dataset, device: torch.device) -> EvaluationImages:
        return EvaluationImages(dataset.evaluation_images.to(device), dataset.evaluation_labels.to(device))


@dataclass(frozen=True)
class Evaluation:
    """`top1` and `top5` in percent, `loss` a sample; the rest, one entry an image, as in `predictions.npz`."""

    top1: float
    top5: float
    loss: float
    target: np.ndarray
    predicted: np.ndarray
    target_rank: np.ndarray
    confidence: np.ndarray
    factors: dict[str, float]

    def predictions(self) -> bytes:
        """The file `predictions.npz`; equal predictions give equal bytes."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            target=self.target.astype(np.uint8),
            predicted=self.predicted.astype(np.uint8),
            target_rank=self.target_rank.astype(np.uint8),
            confidence=self.confidence.astype(np.float16),
        )
        return buffer.getvalue()


def evaluate(trainer: Trainer, evaluation: EvaluationImages) -> Evaluation:
    """Evaluate the run's network as it is, in its own precision, without augmentation.

    The rank of the target is the number of classes with a higher score, plus those of equal score and lower index: a
    network that gives every class the same score is not credited with all of them.
    """
    trainer.wait()
    logits = _logits(trainer, evaluation.images)
    target = evaluation.labels
    own = logits.gather(1, target[:, None])
    classes = torch.arange(logits.shape[1], device=logits.device)
    ahead = (logits > own) | ((logits == own) & (classes < target[:, None]))
    # A score that is not a number is ahead of nothing and behind nothing: such a network has ranked no target.
    rank = torch.where(own.squeeze(1).isnan(), logits.shape[1] - 1, ahead.sum(1))
    settings = trainer.settings
    softmax = losses.uses_softmax(settings.loss)
    scores = logits.softmax(1) if softmax else logits.sigmoid()
    loss = losses.resolve(settings.loss)(logits, target)
    return Evaluation(
        top1=_percent(rank == 0),
        top5=_percent(rank < 5),
        loss=float(loss),
        target=target.cpu().numpy(),
        predicted=logits.argmax(1).cpu().numpy(),
        target_rank=rank.cpu().numpy(),
        confidence=scores.amax(1).cpu().numpy(),
        factors=_factors(trainer, logits, target),
    )


def _percent(right: Tensor) -> float:
    return 100 * (int(right.sum()) / len(right))


@torch.no_grad()
def _logits(trainer: Trainer, images: Tensor) -> Tensor:
    trainer.network.eval()
    parts = []
    for batch in images.split(BATCH):
        inputs = augmentation.normalize(
            batch,
            trainer.images.mean,
            trainer.images.std,
            dtype=trainer.input_dtype,
            memory_format=torch.channels_last,
        )
        with trainer.autocast():
            parts.append(trainer.network(inputs).float())
    trainer.network.train()
    return torch.cat(parts)


def _factors(trainer: Trainer, logits: Tensor, target: Tensor) -> dict[str, float]:
    """Quantiles of the modulating factors of Eq. 1 at these logits; empty for a loss that has none."""
    loss = trainer.settings.loss
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
