"""The training step of one run, from the indices of a batch to updated weights. There is one Trainer per run.

Nothing in `Trainer.step` waits for the device: position, totals and the check for a non-finite loss are tensors on it.
So on CUDA a step is captured as a graph and replayed, and several runs, each on its own stream, overlap on one GPU.

A run's randomness is a pure function of (seed, epoch), drawn on the CPU: a run sees the same batches alone or among
others and on any device, and a resumed run needs no generator state. On a CPU, what a network or loss of one's own
draws from torch's generator in a step, as dropout does, is a function of (seed, epoch, step).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from anchorloss.config.identity import RunSettings
from anchorloss.data import augmentation
from anchorloss.data.dataset import Dataset
from anchorloss.errors import UserError
from anchorloss.training import losses, networks, own_code
from anchorloss.training.capture import captured
from anchorloss.training.precision import forward_pass, input_dtype
from anchorloss.training.schedule import learning_rate

# The totals of an epoch before its first step.
_EPOCH_START: dict[str, float] = {"loss": 0.0, "correct": 0, "failed_step": -1, "last_finite_loss": math.nan}


@dataclass(frozen=True)
class TrainingImages:
    """The training images that the runs on one device share, and how to normalise them.

    `padded` is the int32 (N, H + 8, W + 8) of `augmentation.pad_images`, `labels` int64 (N,); `mean` and `std` are those
    of pixels in [0, 1], per channel.
    """

    padded: Tensor
    labels: Tensor
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    classes: int

    @staticmethod
    def of(dataset: Dataset, device: torch.device) -> TrainingImages:
        padded = augmentation.pad_images(dataset.train_images).to(device)
        labels = dataset.train_labels.to(device)
        return TrainingImages(padded, labels, dataset.mean, dataset.std, len(dataset.class_names))


@dataclass(frozen=True)
class EpochTotals:
    """The totals of one epoch: `train_loss` per sample and `train_top1` in percent, both while training.

    `failed_step` is the first step (0-based) whose loss was not finite, or None; `last_finite_loss` the loss before it.
    """

    train_loss: float
    train_top1: float
    failed_step: int | None
    last_finite_loss: float | None


class Trainer:
    """Network, optimizer and position in the current epoch of one run.

    `compile` compiles the network for full batches; the step computes the same either way.
    """

    def __init__(
        self, settings: RunSettings, images: TrainingImages, device: torch.device, *, compile: bool = False
    ) -> None:
        self.settings = settings
        self.images = images
        self.device = device
        self.steps = math.ceil(len(images.labels) / settings.optim.batch_size)
        with own_code.generator(settings.seed):
            self.loss = losses.resolve(settings.loss)
            self._is_random = own_code.draws_random_numbers(settings, self.loss, images.classes)
            self.network = self._build_network()
        self._batch_counters = _remove_batch_counters(self.network)
        self._eager_forward = forward_pass(self.network, device, settings.precision)
        self._forward = forward_pass(self.network, device, settings.precision, compile=compile)
        self.optimizer = self._build_optimizer()
        self.epoch = self.step_in_epoch = 0
        self._plan = augmentation.plan_epoch(settings.seed, 0, len(images.labels)).to(device)
        self._position = torch.zeros((), dtype=torch.int64, device=device)
        self._totals = {name: torch.tensor(start, device=device) for name, start in _EPOCH_START.items()}
        if device.type != "mps":
            self._totals["loss"] = self._totals["loss"].double()
        self._graphs: dict[tuple[int, bool], torch.cuda.CUDAGraph] = {}
        # Where the steps run; None on other devices.
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def start_epoch(self, epoch: int, step: int = 0) -> None:
        """Draw the epoch's order and augmentation. Continue at `step` with the present totals, or at 0 with new ones."""
        if self.stream is not None:
            # Steps of the last epoch may still be queued, and read the plan that is written here.
            torch.cuda.current_stream(self.device).wait_stream(self.stream)
        self.epoch = epoch
        self.step_in_epoch = step
        plan = augmentation.plan_epoch(self.settings.seed, epoch, len(self.images.labels))
        for name in ("order", "rows", "columns", "flip"):
            getattr(self._plan, name).copy_(getattr(plan, name))
        self._position.fill_(step * self.settings.optim.batch_size)
        if step == 0:
            for name, start in _EPOCH_START.items():
                self._totals[name].fill_(start)
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(self.device))

    def train_step(self) -> int:
        """Take the next step of the epoch, which on CUDA is only enqueued; return its number of images."""
        optim = self.settings.optim
        size = min(optim.batch_size, len(self.images.labels) - self.step_in_epoch * optim.batch_size)
        softmax = self.epoch < optim.softmax_warmup_epochs
        rate = learning_rate(optim, self.epoch, self.step_in_epoch, self.steps)
        with own_code.named_errors(self.settings):
            if self.stream is None:
                self._set_learning_rate(rate)
                with self.own_generator():
                    self.step(size, softmax)
            else:
                with torch.cuda.stream(self.stream):
                    self._set_learning_rate(rate)
                    if (size, softmax) not in self._graphs:
                        self._graphs[size, softmax] = self._capture(size, softmax)
                    self._graphs[size, softmax].replay()
        self.step_in_epoch += 1
        return size

    def step(self, size: int, softmax: bool) -> None:
        """One step on the next `size` images: no host decision depends on a value on the device."""
        plan, images = self._plan, self.images
        place = self._position + torch.arange(size, device=self.device)
        index = plan.order[place]
        target = images.labels[index]
        pixels = augmentation.augment(
            images.padded, index, plan.rows[place], plan.columns[place], plan.flip[place]
        )
        dtype = input_dtype(self.settings.precision)
        inputs = augmentation.normalize(pixels, images.mean, images.std, dtype)

        # An epoch's last batch is not worth a compilation of its own.
        forward = self._forward if size == self.settings.optim.batch_size else self._eager_forward
        self.optimizer.zero_grad(set_to_none=True)
        logits = forward(inputs)
        loss = nn.functional.cross_entropy(logits, target) if softmax else self.loss(logits, target)
        loss.backward()
        self.optimizer.step()

        self._count(loss.detach(), logits.detach(), target)
        self._position += size

    def totals(self) -> EpochTotals:
        """Read the epoch's totals from the device; waits for it."""
        self.wait()
        images = min(self.step_in_epoch * self.settings.optim.batch_size, len(self.images.labels))
        loss, correct, failed_step, last_finite_loss = (value.item() for value in self._totals.values())
        return EpochTotals(
            train_loss=loss / images,
            train_top1=100 * correct / images,
            failed_step=int(failed_step) if failed_step >= 0 else None,
            last_finite_loss=last_finite_loss if math.isfinite(last_finite_loss) else None,
        )

    def wait(self) -> None:
        """Wait until every step enqueued so far is done."""
        if self.stream is not None:
            self.stream.synchronize()

    @property
    def is_idle(self) -> bool:
        """Whether every step enqueued so far is done, without waiting for it."""
        return self.stream is None or self.stream.query()

    def state(self) -> dict[str, Any]:
        """Everything the next step depends on that does not follow from (seed, epoch).

        The tensors are on the CPU and may share memory with the run: save them before the next step.
        """
        self.wait()
        buffers = [self.optimizer.state[p]["momentum_buffer"] for p in self._momentum_parameters()]
        return {
            "network": {name: value.cpu() for name, value in self.network_state().items()},
            "momentum": [buffer.cpu() for buffer in buffers],
            "totals": {name: value.cpu() for name, value in self._totals.items()},
            "step_in_epoch": self.step_in_epoch,
        }

    def network_state(self) -> dict[str, Tensor]:
        """The network's state, with the numbers of batches that its normalisations have seen."""
        batches = self.epoch * self.steps + self.step_in_epoch
        counters = {name: torch.tensor(batches) for name in self._batch_counters}
        return {**self.network.state_dict(), **counters}

    def restore(self, state: dict[str, Any], epoch: int) -> None:
        """Continue from `state` within `epoch`. Values are copied in place, because graphs hold the addresses.

        Raises:
            ValueError: the state is of another network.
        """
        with torch.no_grad():
            _copy_all(self.network_state(), state["network"])
            for parameter, buffer in zip(self._momentum_parameters(), state["momentum"], strict=True):
                _copy(self.optimizer.state[parameter]["momentum_buffer"], buffer)
            _copy_all(self._totals, state["totals"])
        self.start_epoch(epoch, state["step_in_epoch"])

    @property
    def current_learning_rate(self) -> float:
        """The learning rate of the last step, or of the first if there was none."""
        return learning_rate(self.settings.optim, self.epoch, max(self.step_in_epoch - 1, 0), self.steps)

    @contextmanager
    def own_generator(self) -> Iterator[None]:
        """Seed torch's generator for the present step if network or loss draw from it, and keep other runs from it."""
        if not self._is_random or self.stream is not None:
            yield
            return
        with own_code.generator(self.settings.seed, self.epoch, self.step_in_epoch):
            yield

    def _build_network(self) -> nn.Module:
        torch.manual_seed(self.settings.seed)
        network = networks.build(self.settings.model, self.images.classes)
        return network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _build_optimizer(self) -> torch.optim.SGD:
        optim = self.settings.optim
        # A graph replays with the addresses it was captured with, so there the rate is a tensor.
        rate = torch.tensor(optim.lr, device=self.device) if self.device.type == "cuda" else optim.lr
        optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=rate,
            momentum=optim.momentum,
            weight_decay=optim.weight_decay,
            nesterov=optim.nesterov,
            fused=self.device.type in ("cpu", "cuda"),
        )
        if optim.momentum > 0:
            # A buffer of zeros gives the same first step as none, and lets state and graphs rely on its being there.
            for parameter in self.network.parameters():
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer

    def _momentum_parameters(self) -> list[nn.Parameter]:
        return list(self.network.parameters()) if self.settings.optim.momentum > 0 else []

    def _set_learning_rate(self, rate: float) -> None:
        group = self.optimizer.param_groups[0]
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate

    def _count(self, loss: Tensor, logits: Tensor, target: Tensor) -> None:
        totals = self._totals
        totals["loss"] += loss * len(target)
        totals["correct"] += (logits.argmax(1) == target).sum()
        sound = (totals["failed_step"] < 0) & torch.isfinite(loss)
        step = self._position // self.settings.optim.batch_size
        totals["failed_step"].copy_(
            torch.where(sound | (totals["failed_step"] >= 0), totals["failed_step"], step)
        )
        totals["last_finite_loss"].copy_(torch.where(sound, loss, totals["last_finite_loss"]))

    def warm_up(self, size: int, softmax: bool) -> None:
        """Take the next step three times, which a graph needs before it is captured; weights and totals change."""
        position = self._position.clone()
        for _ in range(3):
            self._position.copy_(position)  # an epoch's last batch has none after it
            self.step(size, softmax)
        self._position.copy_(position)

    def _capture(self, size: int, softmax: bool) -> torch.cuda.CUDAGraph:
        """Record one step as a CUDA graph, leaving weights, momentum, totals and position as they were."""
        state = self.state()
        self.warm_up(size, softmax)
        self.optimizer.zero_grad(set_to_none=True)
        try:
            with captured(self.stream) as graph:
                self.step(size, softmax)
        except RuntimeError as ended:
            # The end of a capture that has failed raises an error of its own.
            error = ended.__context__ if isinstance(ended.__context__, RuntimeError) else ended
            if isinstance(error, torch.OutOfMemoryError) or not torch.are_deterministic_algorithms_enabled():
                raise error from None
            # Older versions' deterministic scatter copies from the host, which a graph cannot hold.
            raise UserError(
                f"deterministic=true: torch {torch.__version__} cannot capture this step as a CUDA graph with "
                f"deterministic algorithms ({str(error).splitlines()[0]}); use a newer torch or deterministic=false"
            ) from error
        self.restore(state, self.epoch)
        return graph


def _copy_all(own: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    if own.keys() != values.keys():
        raise ValueError("the state is of another network")
    for name, value in values.items():
        _copy(own[name], value)


def _copy(own: Tensor, value: Tensor) -> None:
    # copy_ would spread a value of another shape.
    if own.shape != value.shape:
        raise ValueError(f"a tensor has the shape {tuple(value.shape)}, not {tuple(own.shape)}")
    own.copy_(value)


def _remove_batch_counters(network: nn.Module) -> list[str]:
    """Remove the batch counters, a kernel each a step, that only a normalisation without momentum reads; their names."""
    removed = []
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.momentum is not None:
            if module.num_batches_tracked is not None:
                removed.append(f"{name}.num_batches_tracked")
            module.num_batches_tracked = None
    return removed
