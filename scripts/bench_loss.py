"""Time the loss, forward and backward, on one thread, beside binary cross entropy and the formula step by step.

The losses take turns; `x_bce` is the ratio to binary cross entropy of a one-hot target made beforehand.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.benchmark import Timer

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _common import parser, run, unused

from anchorloss.device import describe, resolve_device, slug
from anchorloss.loss import ANCHORS, anchor_loss
from anchorloss.runs.files import write_results

ROUNDS, SHAPES = 7, ((128, 100), (4096, 1000), (4, 21, 256, 256))


def step_by_step(logits: Tensor, target: Tensor, anchor: str, gamma: float = 0.5) -> Tensor:
    """Eq. 1 to 4 as they are printed, for logits (N, C, ...), one operation after the other."""
    p = F.one_hot(target, logits.shape[1]).movedim(-1, 1).to(logits.dtype)
    q = torch.sigmoid(logits).clamp(1e-7, 1 - 1e-7)
    of_target, of_background = torch.log(q), torch.log(1 - q)
    if anchor in ("target", "both"):
        of_target = (1 - q + (q * (1 - p)).amax(1, keepdim=True).detach()) ** gamma * of_target
    if anchor in ("background", "both"):
        of_background = (1 + q - (q * p).sum(1, keepdim=True).detach()) ** gamma * of_background
    return -(p * of_target + (1 - p) * of_background).sum(1).mean()


def measure(shape: tuple[int, ...], compiled: bool, device: torch.device) -> Any:
    """The microseconds of each loss of logits of this shape, a row each: median, lowest and highest of the rounds."""
    logits = torch.randn(shape, device=device).requires_grad_()
    target = torch.randint(shape[1], (shape[0], *shape[2:]), device=device)
    one_hot = F.one_hot(target, shape[1]).movedim(-1, 1).to(logits.dtype).contiguous()
    bce = partial(F.binary_cross_entropy_with_logits, target=one_hot, reduction="sum")
    losses: dict[str, Callable[[Tensor], Tensor]] = {"bce": bce}
    losses |= {f"anchor={each}": partial(anchor_loss, target=target, anchor=each) for each in ANCHORS}
    losses |= {f"step by step, {each}": partial(step_by_step, target=target, anchor=each) for each in ANCHORS}
    if compiled:
        torch._dynamo.config.recompile_limit = 64  # wrapped alike, all losses count as one function
        losses = {name: torch.compile(loss, dynamic=False) for name, loss in losses.items()}
    timers = [Timer("loss(logits).backward()", globals={"logits": logits, "loss": losses[n]}) for n in losses]
    turns = [[timer.blocked_autorange(min_run_time=0.05).median for timer in timers] for _ in range(ROUNDS)]
    taken = 1e6 * pd.DataFrame(turns, columns=list(losses))
    table = taken.agg(["median", "min", "max"]).T.add_prefix("microseconds_")
    table["x_bce"] = taken.div(taken["bce"], axis=0).median()
    return table.rename_axis("loss").reset_index().assign(shape=str(shape), compiled=compiled)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--device", default="cpu", help="auto, cpu, cuda (default: %(default)s)")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    device = resolve_device(arguments.device)
    path = unused(arguments.results_dir / "bench" / f"loss-{slug(describe(device))}.csv")
    table = pd.concat(measure(*each, device) for each in product(SHAPES, (False, True)))
    write_results(path.parent, {path.name: table.to_csv(index=False, float_format="%.5g").encode()})
    print(table.to_string(index=False, float_format="{:.4g}".format))


if __name__ == "__main__":
    run(main)
