"""Use a GPU that is lent for half an hour: test the CUDA path, measure, and train an experiment in the time that is left.

Each part is a command that is printed before it runs. The measurements and the training keep to their share of --minutes,
counted from the start; the tests and the plan take what they need. A failed test ends everything; nothing else does.
Arguments after -- go to train.py, as compile=true where the measurements find that faster:

    python scripts/gpu_day.py --results-dir outputs/gpu_day -- data.root=/data/cifar100
    python scripts/gpu_day.py --results-dir outputs/gpu_day --minutes 9 --only train    # goes on, nine minutes more

At home, `scripts/merge_results.py DIR --unfinished` takes the records, and the newest checkpoint of every other run.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from _common import parser, run

from anchorloss.errors import RunError, UserError

BEGUN = time.monotonic()
ROOT = Path(__file__).parents[1]
PARTS = ("tests", "bench", "plan", "train")
# Of the time: what the measurements may take, and what is kept to save checkpoints and records in.
BENCH_SHARE, RESERVE = 1 / 3, 1 / 30


def main() -> None:
    options = parser(__doc__, experiment="table1")
    options.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N (default: %(default)s)")
    options.add_argument("--minutes", type=float, default=30.0, help="for everything (default: %(default)s)")
    options.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    options.add_argument("--models", nargs="+", default=["resnet110"], metavar="MODEL", help="to measure")
    options.add_argument("overrides", nargs="*", help="of train.py, after --")
    arguments = options.parse_args()
    if not 0 < arguments.minutes < 1e6:
        raise UserError("--minutes: must be a finite number above 0")
    where = [f"device={arguments.device}", f"results_dir={arguments.results_dir}", *arguments.overrides]
    train = ["train.py", f"experiment={arguments.experiment}", *where]
    failed = []
    for part in arguments.only:
        left = (1 - RESERVE) * arguments.minutes - (time.monotonic() - BEGUN) / 60
        if left <= 0:
            print(f"{part}: no time is left")
            continue
        bench = ["scripts/bench.py", "--device", arguments.device, "--only", "ladder", "concurrent"]
        bench += [f"--minutes={min(BENCH_SHARE * arguments.minutes, left):.2f}"]
        bench += [f"--results-dir={arguments.results_dir}", "--models", *arguments.models]
        status = _run(
            {
                "tests": ["-m", "pytest", "-q", "-rs", "-n0", "tests/training/test_cuda.py"],
                "bench": bench,
                "plan": [*train, "--plan"],
                "train": [*train, f"minutes={left:.2f}"],
            }[part]
        )
        if status and part == "tests":
            raise RunError(
                "tests: the CUDA path is not sound here (see above); nothing was measured or trained"
            )
        if status:
            failed.append(f"{part} (status {status})")
    print(f"At home: python scripts/merge_results.py {arguments.results_dir} --unfinished")
    if failed:
        raise RunError(f"failed: {', '.join(failed)}; see above")


def _run(arguments: list[str]) -> int:
    """Run a command of the project, and return its exit status."""
    scripts = [str(ROOT / each) if each.endswith(".py") else each for each in arguments]
    print(f"$ python {shlex.join(arguments)}", flush=True)
    return subprocess.run(
        [sys.executable, *scripts], env={**os.environ, "TEST_CUDA": "1"}, check=False
    ).returncode


if __name__ == "__main__":
    run(main)
