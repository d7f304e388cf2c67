"""Time the loss, forward and backward, against binary cross entropy and against the formula written step by step.

python scripts/bench_loss.py                   # eager and compiled; writes results/bench/loss-<device>.csv and .md
python scripts/bench_loss.py --modes eager --output /tmp/bench

The losses take turns, so that other work on the machine slows all alike. Ratios are medians over the rounds. `x_bce` is
a loss's time over that of binary cross entropy (of a one-hot target made beforehand, summed, divided by N) in the same
mode, `step_by_step_x` the step-by-step formula's time over that of the loss. `x_logits_memory` is the most that one
forward and backward holds at a time beyond logits and target, in units of the logits, the final gradient included.

The last size is a segmentation batch, (4, 21, 256, 256), of which anchor loss ignores a tenth of the pixels; binary cross
entropy ignores none.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import accumulate, product
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _common import folder, parser, run, unused

from anchorloss.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MODES = ("eager", "compiled")
SIZES = ((128, 100), (4096, 1000), (4, 21, 256, 256))
IGNORED = -100
VARIANTS = ("none", "target", "background", "both")
BCE = "binary cross entropy"
COLUMNS = (
    "mode",
    "samples",
    "classes",
    "loss",
    "us",
    "us_low",
    "us_high",
    "x_bce",
    "step_by_step_x",
    "x_logits_memory",
)


def step_by_step(logits: Tensor, target: Tensor, anchor: str, gamma: float = 0.5) -> Tensor:
    """Eq. 1 to 4 as they are printed, one operation after the other."""
    import torch

    p = torch.nn.functional.one_hot(target, logits.shape[1]).to(logits.dtype)
    q = torch.sigmoid(logits).clamp(1e-7, 1 - 1e-7)
    of_target, of_background = torch.log(q), torch.log(1 - q)
    if anchor in ("target", "both"):
        q_pos = (q * (1 - p)).max(1, keepdim=True).values.detach()
        of_target = (1 - q + q_pos) ** gamma * of_target
    if anchor in ("background", "both"):
        q_neg = (q * p).sum(1, keepdim=True).detach()
        of_background = (1 + q - q_neg) ** gamma * of_background
    return -(p * of_target + (1 - p) * of_background).sum(1).mean()


def losses(logits: Tensor, target: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """What is compared, by name, each from logits to the mean over the samples.

    The step-by-step formula is for logits (N, C) alone, as it knows no ignored samples.
    """
    from torch.nn import functional as F

    from anchorloss.loss import anchor_loss

    def one_hot() -> Tensor:
        return F.one_hot(target.clamp_min(0), logits.shape[1]).movedim(-1, 1).to(logits.dtype)

    def summed(logits: Tensor, one_hot: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, one_hot, reduction="sum") / target.numel()

    ready = one_hot().contiguous()
    compared: dict[str, Callable[[Tensor], Tensor]] = {BCE: lambda logits: summed(logits, ready)}
    for anchor in VARIANTS:
        compared[f"anchor loss, {anchor}"] = partial(anchor_loss, target=target, anchor=anchor)
    if logits.ndim == 2:
        compared[f"{BCE}, one-hot included"] = lambda logits: summed(logits, one_hot())
        for anchor in VARIANTS:
            compared[f"step by step, {anchor}"] = partial(step_by_step, target=target, anchor=anchor)
    return compared


def measure(
    shape: tuple[int, ...], device: torch.device, seconds: float, mode: str
) -> list[dict[str, object]]:
    """A row a loss, of logits with this shape; `seconds` is for all of them together, after compiling.

    With more than two axes, a tenth of the samples is ignored.
    """
    import torch
    from torch.utils.benchmark import Timer

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator).to(device).requires_grad_()
    target = torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)
    if len(shape) > 2:
        target[torch.rand(target.shape, generator=generator) < 0.1] = IGNORED
    target = target.to(device)
    compared = losses(logits, target)
    if mode == "compiled":
        torch._dynamo.config.recompile_limit = 64  # wrapped in the same way, all losses count as one function
        compared = {
            name: torch.compile(loss, fullgraph=True, dynamic=False) for name, loss in compared.items()
        }
    timer_of = partial(
        Timer, "logits.grad = None; loss(logits).backward()", num_threads=torch.get_num_threads()
    )
    timers = {name: timer_of(globals={"logits": logits, "loss": loss}) for name, loss in compared.items()}
    for timer in timers.values():
        timer.timeit(3)
    times = max(1, round(0.01 / timers[BCE].timeit(3).mean))
    taken: dict[str, list[float]] = {name: [] for name in compared}
    while sum(map(sum, taken.values())) * times < seconds or len(taken[BCE]) < 3:
        for name, timer in timers.items():
            taken[name].append(timer.timeit(times).mean)

    def held(loss: Callable[[Tensor], Tensor]) -> float:
        return peak_memory(lambda: torch.autograd.grad(loss(logits), logits)) / logits.nbytes

    logits.grad = None
    rows: list[dict[str, object]] = []
    for name, own in taken.items():
        stepwise = taken.get(name.replace("anchor loss", "step by step"))
        rows.append(
            {
                "mode": mode,
                "samples": target.numel(),
                "classes": shape[1],
                "loss": name if len(shape) == 2 else f"{name}, ignored samples",
                "us": 1e6 * statistics.median(own),
                "us_low": 1e6 * min(own),
                "us_high": 1e6 * max(own),
                "x_bce": _ratio(own, taken[BCE]),
                "step_by_step_x": "" if stepwise is None else _ratio(stepwise, own),
                "x_logits_memory": held(compared[name]),
            }
        )
    return rows


def _ratio(these: list[float], those: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(these, those, strict=True))


def peak_memory(work: Callable[[], object]) -> int:
    """The most bytes that `work` holds at a time, on whatever device; what it finds is not counted."""
    from torch.profiler import profile

    with profile(profile_memory=True) as profiler:
        work()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    moved = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event["name"] == "[memory]")
    return max(accumulate((size for _, size in moved), initial=0))


def to_markdown(rows: list[dict[str, object]]) -> str:
    """One line a loss."""
    from anchorloss.analysis.markdown import markdown_table

    def cell(key: str, value: object) -> str:
        if not isinstance(value, float):
            return str(value)
        return f"{value:.0f}" if key.startswith("us") else f"{value:.2f}"

    return markdown_table(COLUMNS, [[cell(*item) for item in row.items()] for row in rows], "lrrlr")


def main() -> None:
    options = parser(__doc__, results_dir=None)
    options.add_argument("--device", default="cpu", help="auto, cpu, cuda (default: %(default)s)")
    options.add_argument("--threads", type=int, default=1, help="of the CPU (default: %(default)s)")
    options.add_argument("--seconds", type=float, default=10.0, help="for each size (default: %(default)s)")
    options.add_argument("--modes", nargs="+", choices=MODES, default=MODES, help="default: %(default)s")
    options.add_argument(
        "--output", type=folder, default=Path("results/bench"), help="the folder (default: %(default)s)"
    )
    arguments = options.parse_args()
    if arguments.threads < 1 or not arguments.seconds > 0:
        raise UserError("--threads, --seconds: must be above 0")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own lines, one for every memory measured
    import pandas as pd
    import torch

    from anchorloss.benchmark.allocator import keep_freed_memory
    from anchorloss.device import describe, resolve_device, slug
    from anchorloss.runs import provenance
    from anchorloss.runs.files import write_results

    keep_freed_memory()  # time the losses, not the kernel clearing pages
    torch.set_num_threads(arguments.threads)
    device = resolve_device(arguments.device)
    rows = []
    for mode, shape in product(arguments.modes, SIZES):
        rows += measure(shape, device, arguments.seconds, mode)
    machine = describe(device)
    title = (
        f"The loss on {machine}, torch {torch.__version__}, commit {provenance.short_commit(*provenance.commit())}; "
        "made by scripts/bench_loss.py, which says what the columns are."
    )
    page = f"{title}\n\n{to_markdown(rows)}\n"
    print(page, end="")
    path = unused(arguments.output / f"loss-{slug(machine)}.csv")
    table = pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")
    write_results(path.parent, {path.name: table.encode(), f"{path.stem}.md": page.encode()})


if __name__ == "__main__":
    run(main)
