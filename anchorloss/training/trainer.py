"""The training step of one run, from the indices of a batch to updated weights. There is one Trainer per run.

Nothing in `Trainer.step` waits for the device: position, totals and the check for a non-finite loss are tensors on it.
So on CUDA a step is captured as a graph and replayed, and several runs, each on its own stream, overlap on one GPU.

A run's randomness is a pure function of (seed, epoch), drawn on the CPU: a run sees the same batches alone or among
others and on any device, and a resumed run needs no generator state. On a CPU, what a network or loss of one's own
draws from torch's generator in a step, as dropout does, is a function of (seed, epoch, step).
"""

from __future__ import annotations

import gc
import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from anchorloss.config.settings import RunSettings
from anchorloss.data import augmentation
from anchorloss.training.build import LossFunction, build_loss, build_network, named_errors, seeded
from anchorloss.training.device_data import DeviceData
from anchorloss.training.precision import forward_pass, input_dtype
from anchorloss.training.schedule import learning_rate

# The totals of an epoch before its first step.
_EPOCH_START: dict[str, float] = {"loss": 0.0, "correct": 0, "failed_step": -1, "last_finite_loss": math.nan}


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

    def __init__(self, settings: RunSettings, data: DeviceData, *, compile: bool = False) -> None:
        self.settings = settings
        self.data = data
        self.device = device = data.device
        self.steps = math.ceil(len(data.train_labels) / settings.optim.batch_size)
        # Where the steps run; None on other devices.
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        with seeded(settings.seed):
            network = build_network(settings.model, data.classes)
            self.loss = self._build_loss()
        self.network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._eager_forward = forward_pass(self.network, device, settings.precision)
        self._forward = forward_pass(self.network, device, settings.precision, compile=compile)
        self.optimizer = self._build_optimizer()
        self.epoch = self.step_in_epoch = 0
        self._plan = augmentation.plan_epoch(settings.seed, 0, len(data.train_labels)).to(device)
        self._position = torch.zeros((), dtype=torch.int64, device=device)
        self._totals = {name: torch.tensor(start, device=device) for name, start in _EPOCH_START.items()}
        if device.type != "mps":
            self._totals["loss"] = self._totals["loss"].double()
        self._graphs: dict[tuple[int, bool], torch.cuda.CUDAGraph] = {}

    def start_epoch(self, epoch: int, step: int = 0) -> None:
        """Draw the epoch's order and augmentation. Continue at `step` with the present totals, or at 0 with new ones."""
        if self.stream is not None:
            # Steps of the last epoch may still be queued, and read the plan that is written here.
            torch.cuda.current_stream(self.device).wait_stream(self.stream)
        self.epoch = epoch
        self.step_in_epoch = step
        plan = augmentation.plan_epoch(self.settings.seed, epoch, len(self.data.train_labels))
        for field in fields(plan):
            getattr(self._plan, field.name).copy_(getattr(plan, field.name))
        self._position.fill_(step * self.settings.optim.batch_size)
        if step == 0:
            for name, start in _EPOCH_START.items():
                self._totals[name].fill_(start)
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(self.device))

    def train_step(self) -> None:
        """Take the next step of the epoch, which on CUDA is only enqueued."""
        optim = self.settings.optim
        size = min(optim.batch_size, len(self.data.train_labels) - self.step_in_epoch * optim.batch_size)
        softmax = self.epoch < optim.softmax_warmup_epochs
        rate = learning_rate(optim, self.epoch, self.step_in_epoch, self.steps)
        with named_errors(self.settings), torch.cuda.stream(self.stream):
            group = self.optimizer.param_groups[0]
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
            if self.stream is None:
                with self._seeded_step() if self.settings.model.function is not None else nullcontext():
                    self.step(size, softmax)
            else:
                if (size, softmax) not in self._graphs:
                    self._graphs[size, softmax] = self._capture(size, softmax)
                self._graphs[size, softmax].replay()
        self.step_in_epoch += 1

    def step(self, size: int, softmax: bool) -> None:
        """One step on the next `size` images: no host decision depends on a value on the device."""
        plan, data = self._plan, self.data
        place = self._position + torch.arange(size, device=self.device)
        index = plan.order[place]
        target = data.train_labels[index]
        pixels = augmentation.augment(
            data.train_images, index, plan.rows[place], plan.columns[place], plan.flip[place]
        )
        dtype = input_dtype(self.settings.precision)
        inputs = augmentation.normalize(pixels, data.dataset.mean, data.dataset.std, dtype)

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
        images = min(self.step_in_epoch * self.settings.optim.batch_size, len(self.data.train_labels))
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
        own = self._tensors()
        parts = {part: {name: value.cpu() for name, value in own[part].items()} for part in own}
        return {**parts, "momentum": list(parts["momentum"].values()), "step_in_epoch": self.step_in_epoch}

    def restore(self, state: dict[str, Any], epoch: int) -> None:
        """Continue from `state` within `epoch`. Values are copied in place, because graphs hold the addresses.

        Raises:
            ValueError: the state is of another network.
        """
        state = {**state, "momentum": dict(enumerate(state["momentum"]))}
        for part, own in self._tensors().items():
            values = state[part]
            if own.keys() != values.keys() or any(own[name].shape != values[name].shape for name in own):
                raise ValueError(f"its {part} has other tensors, or tensors of another shape")
            for name, value in values.items():
                own[name].copy_(value)
        self.start_epoch(epoch, state["step_in_epoch"])

    def _tensors(self) -> dict[str, dict[Any, Tensor]]:
        """All tensors that a step changes, but for the position."""
        parameters = self.network.parameters() if self.settings.optim.momentum > 0 else ()
        buffers = dict(enumerate(self.optimizer.state[each]["momentum_buffer"] for each in parameters))
        return {"network": self.network.state_dict(), "momentum": buffers, "totals": self._totals}

    def _seeded_step(self) -> AbstractContextManager[None]:
        """What is drawn from torch's generator on a CPU is a function of (seed, epoch, step)."""
        return seeded(self.settings.seed, self.epoch, self.step_in_epoch)

    def _build_loss(self) -> LossFunction:
        """The loss; one of one's own seeds what it draws, without keeping runs with other networks from their steps."""
        loss = build_loss(self.settings.loss)
        if self.stream is not None or self.settings.loss.source is None:
            return loss

        def seeded_loss(logits: Tensor, target: Tensor) -> Tensor:
            with self._seeded_step():
                return loss(logits, target)

        return seeded_loss

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

    def _capture(self, size: int, softmax: bool) -> torch.cuda.CUDAGraph:
        """Record one step as a CUDA graph, leaving weights, momentum, totals and position as they were."""
        state = self.state()
        for _ in range(3):  # the first steps choose algorithms and allocate
            self.step(size, softmax)
            self._position -= size  # an epoch's last batch has none after it
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        # What Python's garbage collector finalises may free a graph or a kernel, which ends a capture.
        gc.collect()
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                self.step(size, softmax)
        except RuntimeError as error:
            # The end of a capture that has failed raises an error of its own.
            raise (error.__context__ if isinstance(error.__context__, RuntimeError) else error) from None
        finally:
            if was_enabled:
                gc.enable()
        self.restore(state, self.epoch)
        return graph
