"""What is measured on the evaluation set: accuracies, loss, predictions, and how far the loss modulates."""

from __future__ import annotations

import inspect
import io
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from anchorloss.config.identity import LossSettings
from anchorloss.data import augmentation
from anchorloss.data.dataset import Dataset
from anchorloss.loss import modulation
from anchorloss.training.capture import captured
from anchorloss.training.losses import Loss
from anchorloss.training.precision import forward_pass, input_dtype

BATCH = 500


@dataclass(frozen=True)
class EvaluationImages:
    """The evaluation images, uint8 (N, 3, 32, 32), and labels, int64 (N,), on the device.

    `mean` and `std` are those of the training images' pixels in [0, 1], a channel.
    """

    images: Tensor
    labels: Tensor
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @staticmethod
    def of(dataset: Dataset, device: torch.device) -> EvaluationImages:
        images, labels = dataset.evaluation_images.to(device), dataset.evaluation_labels.to(device)
        return EvaluationImages(images, labels, dataset.mean, dataset.std)


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


def evaluate(network: nn.Module, loss: Loss, evaluation: EvaluationImages, precision: str) -> Evaluation:
    """`measure` once what `Prediction` gives for the same arguments; nothing may still write to the network's weights."""
    return measure(Prediction(network, evaluation, precision)(), loss, evaluation.labels)


class Prediction:
    """The logits of the evaluation images, each time by the network as it then is.

    On CUDA the second call captures the forward pass of a batch as a graph, which later calls replay: a small network's
    evaluation is bound by the launches of its kernels.

    Args:
        network: maps normalised images (N, 3, 32, 32) to logits (N, C). It is left in training mode.
        evaluation: the images and how to normalise them.
        precision: "bf16" or "fp32", in which the network computes.
        stream: the CUDA stream on which to compute; None computes without graphs.
    """

    def __init__(
        self,
        network: nn.Module,
        evaluation: EvaluationImages,
        precision: str,
        stream: torch.cuda.Stream | None = None,
    ) -> None:
        self._network = network
        self._evaluation = evaluation
        self._dtype = input_dtype(precision)
        self._stream = stream
        self._forward = forward_pass(network, evaluation.images.device, precision)
        self._logits: Tensor | None = None
        self._graphs: dict[int, _BatchGraph] = {}

    @torch.no_grad()
    def __call__(self) -> Tensor:
        """The logits, float32 (N, C). They are overwritten by the next call."""
        if self._stream is None:
            self._logits = self._eager()
            return self._logits
        with torch.cuda.stream(self._stream):
            if self._logits is None:
                self._logits = self._eager()  # also what a capture needs to have run before
            else:
                self._replay(self._logits)
        torch.cuda.current_stream(self._evaluation.images.device).wait_stream(self._stream)
        return self._logits

    def _eager(self) -> Tensor:
        self._network.eval()
        parts = [self._compute(batch) for batch in self._evaluation.images.split(BATCH)]
        self._network.train()
        return torch.cat(parts)

    def _replay(self, logits: Tensor) -> None:
        for batch, part in zip(self._evaluation.images.split(BATCH), logits.split(BATCH), strict=True):
            if len(batch) not in self._graphs:
                self._graphs[len(batch)] = self._capture(batch)
            recorded = self._graphs[len(batch)]
            recorded.images.copy_(batch)
            recorded.graph.replay()
            part.copy_(recorded.logits)

    def _capture(self, batch: Tensor) -> _BatchGraph:
        images = batch.clone()
        self._network.eval()
        with captured(self._stream) as graph:
            logits = self._compute(images)
        self._network.train()
        return _BatchGraph(graph, images, logits)

    def _compute(self, batch: Tensor) -> Tensor:
        return self._forward(
            augmentation.normalize(batch, self._evaluation.mean, self._evaluation.std, self._dtype)
        )


@dataclass(frozen=True)
class _BatchGraph:
    """The forward pass of one batch: `images` in, `logits` out, both overwritten in place."""

    graph: torch.cuda.CUDAGraph
    images: Tensor
    logits: Tensor


@torch.no_grad()
def measure(logits: Tensor, loss: Loss, target: Tensor) -> Evaluation:
    """What `logits` (N, C) are worth for `target` (N,).

    The rank of the target is the number of classes with a higher score, plus those of equal score and lower index: a
    network that gives every class the same score is not credited with all of them.
    """
    own = logits.gather(1, target[:, None])
    classes = torch.arange(logits.shape[1], device=logits.device)
    ahead = (logits > own) | ((logits == own) & (classes < target[:, None]))
    # A score that is not a number is ahead of nothing and behind nothing: such a network has ranked no target.
    rank = torch.where(own.squeeze(1).isnan(), logits.shape[1] - 1, ahead.sum(1))
    scores = logits.softmax(1) if loss.uses_softmax else logits.sigmoid()
    return Evaluation(
        top1=_percent(rank == 0),
        top5=_percent(rank < 5),
        loss=float(loss(logits, target)),
        target=target.cpu().numpy(),
        predicted=logits.argmax(1).cpu().numpy(),
        target_rank=rank.cpu().numpy(),
        confidence=scores.amax(1).cpu().numpy(),
        factors=_factors(loss.settings, logits, target),
    )


def _percent(right: Tensor) -> float:
    return 100 * (int(right.sum()) / len(right))


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
