"""Faults that only CUDA can have: a case must find each when it is planted in the code."""

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


def _faults(module: str, *faults: tuple[str, str, str, str]) -> tuple[Fault, ...]:
    return tuple(
        Fault(name, case, f"anchorloss.training.{module}", old, new) for name, case, old, new in faults
    )


FAULTS = (
    *_faults(
        "trainer",
        (
            "the rate is a Python number",
            "epochs",
            'torch.tensor(optim.lr, device=self.device) if self.device.type == "cuda" else optim.lr',
            "optim.lr",
        ),
        (
            "an epoch does not wait for the steps before it",
            "benchmark",
            "torch.cuda.current_stream(self.device).wait_stream(self.stream)",
            "pass",
        ),
        (
            "the steps do not wait for their epoch",
            "together",
            "self.stream.wait_stream(torch.cuda.current_stream(self.device))",
            "pass",
        ),
        ("the host looks at the loss", "losses", "loss.backward()", "loss.item(); loss.backward()"),
        (
            "totals are new tensors",
            "epochs",
            'totals["correct"] += ',
            'totals["correct"] = totals["correct"] + ',
        ),
        (
            "the position is a Python number",
            "epochs",
            "place = self._position + torch",
            "place = self.step_in_epoch * self.settings.optim.batch_size + torch",
        ),
        (
            "a graph's warm-up is not undone",
            "epochs",
            "        self.restore(state, self.epoch)\n",
            "",
        ),
        ("an index on the host", "losses", "torch.arange(size, device=self.device)", "torch.arange(size)"),
        (
            "restored into new memory",
            "epochs",
            "own[name].copy_(value)",
            "own[name].set_(value.to(self.device))",
        ),
        (
            "one graph for both losses",
            "epochs",
            "                    if (size, softmax) not in self._graphs:",
            "                    softmax = False\n                    if (size, softmax) not in self._graphs:",
        ),
        (
            "one graph for both sizes",
            "epochs",
            "                    if (size, softmax) not in self._graphs:",
            "                    size = optim.batch_size\n                    if (size, softmax) not in self._graphs:",
        ),
        ("the rate is set once", "epochs", '            group["lr"].fill_(rate)', "            pass"),
        (
            "steps are not on the run's stream",
            "epochs",
            "                with torch.cuda.stream(self.stream):",
            "                if True:",
        ),
        (
            "all runs are on one stream",
            "together",
            "torch.cuda.Stream(device) if",
            'torch.cuda.__dict__.setdefault("_shared", torch.cuda.Stream(device)) if',
        ),
        (
            "a checkpoint is read before its steps are done",
            "sweep",
            "        self.wait()\n        own",
            "        own",
        ),
        (
            "the totals are read before their steps are done",
            "epochs",
            "        self.wait()\n        images",
            "        images",
        ),
        (
            "the plan of the first epoch stays on the device",
            "textbook",
            "getattr(self._plan, field.name).copy_(getattr(plan, field.name))",
            "pass",
        ),
        (
            "warming up goes on to the next batches",
            "epochs",
            "            self._position.copy_(position)  # an epoch's last batch has none after it\n",
            "",
        ),
    ),
    *_faults(
        "evaluation",
        (
            "logits are read before they are computed",
            "epochs",
            "        torch.cuda.current_stream(data.device).wait_stream(stream)\n",
            "        pass\n",
        ),
    ),
    *_faults(
        "precision",
        ("bf16 means fp32", "losses", 'if precision == "fp32":', "if True:"),
        (
            "bf16 logits reach the loss",
            "losses",
            "            return module(images).float()\n",
            "            return module(images)\n",
        ),
    ),
    *_faults(
        "run",
        (
            "memory is freed without waiting",
            "failing",
            "            trainer.wait()\n        record",
            "            pass\n        record",
        ),
        (
            "steps are not waited for",
            "sweep",
            "        while not trainer.is_idle:\n            yield done\n",
            "",
        ),
    ),
)
