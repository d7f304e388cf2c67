"""Faults that a case must find when they are planted in the code: what is replaced in which module, by what."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """`old`, which the module has once, becomes `new`; `case` must then fail."""

    name: str
    case: str
    module: str
    old: str
    new: str


TRAINER = "anchorloss.training.trainer"
EVALUATION = "anchorloss.training.evaluation"
PRECISION = "anchorloss.training.precision"
AUGMENTATION = "anchorloss.data.augmentation"
LOOP = "anchorloss.training.loop"
EXECUTOR = "anchorloss.sweep.executor"
LADDER = "anchorloss.benchmark.ladder"

FAULTS = (
    Fault(
        "the rate is a Python number",
        "epochs",
        TRAINER,
        'torch.tensor(optim.lr, device=self.device) if self.device.type == "cuda" else optim.lr',
        "optim.lr",
    ),
    Fault(
        "an epoch does not wait for the steps before it",
        "benchmark",
        TRAINER,
        "torch.cuda.current_stream(self.device).wait_stream(self._stream)",
        "pass",
    ),
    Fault(
        "the steps do not wait for their epoch",
        "together",
        TRAINER,
        "self._stream.wait_stream(torch.cuda.current_stream(self.device))",
        "pass",
    ),
    Fault("the host looks at the loss", "losses", TRAINER, "loss.backward()", "loss.item(); loss.backward()"),
    Fault(
        "the host counts what is right",
        "losses",
        TRAINER,
        "(logits.argmax(1) == target).sum()",
        "(logits.argmax(1) == target).nonzero().shape[0]",
    ),
    Fault(
        "totals are new tensors",
        "epochs",
        TRAINER,
        'totals["correct"] += ',
        'totals["correct"] = totals["correct"] + ',
    ),
    Fault(
        "the position is a Python number",
        "epochs",
        TRAINER,
        "place = self._position + torch",
        "place = self.step_in_epoch * self.settings.optim.batch_size + torch",
    ),
    Fault(
        "the position is not advanced",
        "epochs",
        TRAINER,
        "        self._position += size\n",
        "",
    ),
    Fault(
        "a graph's warm-up is not undone",
        "epochs",
        TRAINER,
        "        self.restore(state, self.epoch)\n        return graph",
        "        return graph",
    ),
    Fault(
        "gradients add up",
        "epochs",
        TRAINER,
        "self.optimizer.zero_grad(set_to_none=True)\n        logits",
        "logits",
    ),
    Fault("an index on the host", "losses", TRAINER, "torch.arange(size, device=self.device)", "torch.arange(size)"),
    Fault(
        "momentum is restored into new memory",
        "epochs",
        TRAINER,
        '_copy(self.optimizer.state[parameter]["momentum_buffer"], buffer)',
        'self.optimizer.state[parameter]["momentum_buffer"] = buffer.to(self.device)',
    ),
    Fault(
        "momentum is not restored",
        "resume",
        TRAINER,
        '_copy(self.optimizer.state[parameter]["momentum_buffer"], buffer)',
        "pass",
    ),
    Fault("totals are not restored", "resume", TRAINER, '            _copy_all(self._totals, state["totals"])\n', ""),
    Fault(
        "one graph for both losses",
        "epochs",
        TRAINER,
        "                if (size, softmax) not in self._graphs:",
        "                softmax = False\n                if (size, softmax) not in self._graphs:",
    ),
    Fault(
        "one graph for both sizes",
        "epochs",
        TRAINER,
        "                if (size, softmax) not in self._graphs:",
        "                size = optim.batch_size\n                if (size, softmax) not in self._graphs:",
    ),
    Fault(
        "every epoch has the first one's plan",
        "textbook",
        TRAINER,
        "plan_epoch(self.settings.seed, epoch, len",
        "plan_epoch(self.settings.seed, 0, len",
    ),
    Fault(
        "the plan is not copied to the device",
        "textbook",
        TRAINER,
        '("order", "rows", "columns", "flip")',
        '("order", "rows", "columns")',
    ),
    Fault(
        "the rate is set once",
        "textbook",
        TRAINER,
        '            group["lr"].fill_(rate)',
        "            pass",
    ),
    Fault("no weight decay", "textbook", TRAINER, "weight_decay=optim.weight_decay", "weight_decay=0.1"),
    Fault("no momentum", "textbook", TRAINER, "momentum=optim.momentum", "momentum=0"),
    Fault(
        "steps are not on the run's stream",
        "epochs",
        TRAINER,
        "            with torch.cuda.stream(self._stream):",
        "            if True:",
    ),
    Fault(
        "failures are counted from the step after",
        "diverged",
        TRAINER,
        'sound = (totals["failed_step"] < 0) & torch.isfinite(loss)',
        'sound = (totals["failed_step"] < 0) & torch.isfinite(totals["loss"] * 0)',
    ),
    Fault(
        "a constant on the host",
        "losses",
        AUGMENTATION,
        ").to(device) for image in images",
        ") for image in images",
    ),
    Fault("images are not flipped", "textbook", AUGMENTATION, "cropped.flip(2)", "cropped"),
    Fault(
        "weights are cast by the host's copy",
        "losses",
        PRECISION,
        "torch._foreach_copy_(result, tensors)",
        "[one.copy_(other.cpu()) for one, other in zip(result, tensors)]",
    ),
    Fault(
        "gradients of the cast weights stay bfloat16",
        "losses",
        PRECISION,
        "if gradient is not None], torch.float32)",
        "if gradient is not None], torch.bfloat16)",
    ),
    Fault(
        "each weight is cast by itself",
        "step_count",
        PRECISION,
        "_CastTogether.apply(*parameters.values())",
        "(value.bfloat16() for value in parameters.values())",
    ),
    Fault(
        "batches are counted in the step",
        "step_count",
        TRAINER,
        "            module.num_batches_tracked = None\n",
        "",
    ),
    Fault(
        "evaluated in training mode",
        "textbook",
        EVALUATION,
        "        self._network.eval()\n        parts",
        "        parts",
    ),
    Fault(
        "an evaluation is captured in training mode",
        "epochs",
        EVALUATION,
        "        self._network.eval()\n        with",
        "        with",
    ),
    Fault(
        "evaluated images as if of mean 0", "textbook", EVALUATION, "self._evaluation.mean,", "(0.0, 0.0, 0.0),"
    ),
    Fault(
        "every batch is evaluated as the first",
        "epochs",
        EVALUATION,
        "            captured.images.copy_(batch)\n",
        "",
    ),
    Fault(
        "the logits are of the evaluation before",
        "epochs",
        EVALUATION,
        "            part.copy_(captured.logits)\n",
        "",
    ),
    Fault(
        "logits are read before they are computed",
        "epochs",
        EVALUATION,
        "torch.cuda.current_stream(self._evaluation.images.device).wait_stream(self._stream)",
        "pass",
    ),
    Fault("the target's rank ignores others", "textbook", EVALUATION, "(logits > own)", "(logits < own)"),
    Fault(
        "left in evaluation mode",
        "textbook",
        EVALUATION,
        "        self._network.train()\n        return torch.cat(parts)",
        "        return torch.cat(parts)",
    ),
    Fault(
        "memory is freed without waiting",
        "failing",
        LOOP,
        "            trainer.wait()\n        seconds",
        "            pass\n        seconds",
    ),
    Fault(
        "a checkpoint's step is forgotten",
        "sweep",
        LOOP,
        'trainer.restore(found["trainer"], state.epoch)',
        "trainer.start_epoch(state.epoch)",
    ),
    Fault(
        "a run that is stopped saves nothing",
        "sweep",
        LOOP,
        "        except GeneratorExit:\n            save()",
        "        except GeneratorExit:",
    ),
    Fault(
        "the budget is not looked at",
        "sweep",
        EXECUTOR,
        "if time.monotonic() >= deadline:",
        "if False:",
    ),
    Fault("runs do not wait for a free place", "sweep", EXECUTOR, "if len(self._live) == self._width:", "if False:"),
    Fault(
        "finished runs are trained again",
        "sweep",
        EXECUTOR,
        "return record is not None and record !=",
        "return False and record !=",
    ),
    Fault("claims are kept", "sweep", EXECUTOR, "                stack.callback(run.claim.release)\n", ""),
    Fault("a failed run gives status 0", "sweep_with_failures", EXECUTOR, "        raise SystemExit(1)\n", ""),
    Fault(
        "a failed record is overwritten",
        "sweep_with_failures",
        EXECUTOR,
        "            _set_failed_aside(folder)",
        "            (folder / store.RECORD).unlink()",
    ),
    Fault(
        "a device without an index is refused",
        "benchmark",
        LADDER,
        "set_device(device.index or 0)",
        "set_device(device)",
    ),
)  # fmt: skip
