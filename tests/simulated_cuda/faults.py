"""Faults that only CUDA can have: a case must find each when it is planted in the code."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

TRAINING = Path(__file__).parent.parent.parent / "anchorloss" / "training"


class Fault(NamedTuple):
    """`old`, which the file of `anchorloss.training` has once, becomes `new`; `case` must then fail."""

    case: str
    file: str
    old: str
    new: str

    @property
    def path(self) -> Path:
        return TRAINING / self.file

    @property
    def module(self) -> str:
        return f"anchorloss.training.{self.path.stem}"


CAPTURED = "if (size, softmax) not in self._graphs:"
WAITS = "torch.cuda.current_stream(self.device).wait_stream(self.stream)"
IS_WAITED_FOR = "self.stream.wait_stream(torch.cuda.current_stream(self.device))"
RATE = 'torch.tensor(optim.lr, device=self.device) if self.device.type == "cuda" else optim.lr'
STREAM = "torch.cuda.Stream(device) if"
ONE_STREAM = 'torch.cuda.__dict__.setdefault("_shared", torch.cuda.Stream(device)) if'
PLAN = "getattr(self._plan, field.name).copy_(getattr(plan, field.name))"
POSITION = "self.step_in_epoch * self.settings.optim.batch_size"
LOGITS = "        torch.cuda.current_stream(data.device).wait_stream(stream)\n"

FAULTS = (
    # What a graph cannot see: Python's numbers, other tensors than those it was captured with, the host.
    Fault("epochs", "trainer.py", RATE, "optim.lr"),
    Fault("epochs", "trainer.py", 'group["lr"].fill_(rate)', "pass"),
    Fault("epochs", "trainer.py", "place = self._position + torch", f"place = {POSITION} + torch"),
    Fault("epochs", "trainer.py", 'totals["correct"] += ', 'totals["correct"] = totals["correct"] + '),
    Fault("epochs", "trainer.py", "own[name].copy_(value)", "own[name].set_(value.to(self.device))"),
    Fault("textbook", "trainer.py", PLAN, "pass"),
    Fault("losses", "trainer.py", "loss.backward()", "loss.item(); loss.backward()"),
    Fault("losses", "trainer.py", "torch.arange(size, device=self.device)", "torch.arange(size)"),
    # One graph in place of several, and what its capture leaves behind.
    Fault("epochs", "trainer.py", CAPTURED, f"softmax = False\n{' ' * 16}{CAPTURED}"),
    Fault("epochs", "trainer.py", CAPTURED, f"size = optim.batch_size\n{' ' * 16}{CAPTURED}"),
    Fault("epochs", "trainer.py", "        self.restore(state, self.epoch)\n", ""),
    Fault("epochs", "trainer.py", "self._position -= size  # an", "pass  # an"),
    # Streams: which runs where, and who waits for whom.
    Fault("epochs", "trainer.py", ", torch.cuda.stream(self.stream):", ":"),
    Fault("together", "trainer.py", STREAM, ONE_STREAM),
    Fault("together", "trainer.py", WAITS, "pass"),
    Fault("together", "trainer.py", IS_WAITED_FOR, "pass"),
    Fault("sweep", "trainer.py", "        self.wait()\n        own", "        own"),
    Fault("epochs", "trainer.py", "        self.wait()\n        images", "        images"),
    Fault("epochs", "evaluation.py", LOGITS, "        pass\n"),
    Fault(
        "failing", "run.py", "            trainer.wait()\n        record", "            pass\n        record"
    ),
    Fault("sweep", "run.py", "        while not trainer.is_idle:\n            yield done\n", ""),
    # Precision.
    Fault("losses", "precision.py", 'is_bf16 = precision == "bf16"', "is_bf16 = False"),
)
