"""How the report grows: seconds and memory at N runs and at ten times as many, with invented runs.

python scripts/bench_report.py --runs 100      # 4 losses; writes results/bench/report-<device>.csv
"""

from __future__ import annotations

import csv
import io
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _common import parser, run, unused

from anchorloss.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
LOSSES = 4
FIELDS = ("runs", "seconds", "peak_mb", "page_mb")


def measure(runs: int, images: int, epochs: int) -> dict[str, float]:
    """Make `runs` runs, and the report in a process of its own; its wall time, peak memory and size in MB."""
    sys.path.insert(0, str(ROOT))
    from tests.fake_runs import make_runs

    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        seeds = range(-(-runs // LOSSES))
        make_runs(results, "many", seeds=seeds, epochs=epochs, images=images)
        command = [sys.executable, __file__, "--report", folder]
        begun = time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
        seconds = time.perf_counter() - begun
        page = (results / "many" / "report.html").stat().st_size / 1e6
    return {"runs": LOSSES * len(seeds), "seconds": seconds, "peak_mb": float(done.stdout), "page_mb": page}


def main() -> None:
    arguments = parser(__doc__, results_dir="results")
    arguments.add_argument(
        "--runs", type=int, default=100, help="and ten times as many (default: %(default)s)"
    )
    arguments.add_argument(
        "--images", type=int, default=10_000, help="evaluation images (default: %(default)s)"
    )
    arguments.add_argument("--epochs", type=int, default=200, help="rows of a history (default: %(default)s)")
    arguments.add_argument(
        "--report", type=Path, help="only make the report of this folder, and print its memory"
    )
    given = arguments.parse_args()
    if min(given.runs, given.images, given.epochs) < 1 or given.images < 100:
        raise UserError(
            f"--runs {given.runs}, --images {given.images}, --epochs {given.epochs}: must be at least 1, 100 and 1"
        )
    if given.report is not None:
        from anchorloss.report.page import write_report

        write_report(given.report, "many")
        whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)  # which share much: an upper bound
        unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, elsewhere KiB
        print(sum(resource.getrusage(one).ru_maxrss for one in whose) / unit)
        return
    from anchorloss.device import describe, resolve_device, slug
    from anchorloss.runs.files import write_results

    path = unused(given.results_dir / "bench" / f"report-{slug(describe(resolve_device('cpu')))}.csv")
    few, many = (measure(n, given.images, given.epochs) for n in (given.runs, 10 * given.runs))
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({field: round(found[field], 3) for field in FIELDS} for found in (few, many))
    write_results(path.parent, {path.name: text.getvalue().encode()})
    print(text.getvalue(), end="")
    print(f"10 times the runs: {many['seconds'] / few['seconds']:.1f} times the time")


if __name__ == "__main__":
    run(main)
