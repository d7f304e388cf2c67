"""Measure the training loop against the textbook's, and against what this device can do.

Writes results/bench/DEVICE.csv and .md, after each round; a device that has them gets new ones with the date.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _common import folder, parser, run, show, unused

from anchorloss.errors import UserError

if TYPE_CHECKING:
    import torch

    from anchorloss.benchmark.rows import Row

BEGUN = time.monotonic()
CONFIGS = Path(__file__).parents[1] / "configs"
MODELS = ("resnet20", "resnet110")
COUNTS = (1, 2, 4, 8, 16)
GROWTH = (("resnet20", "resnet56", "resnet110"), (128, 512))
SECTIONS = ("ladder", "operators", "concurrent", "growth")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    options.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="default: all")
    options.add_argument(
        "--models",
        nargs="+",
        default=MODELS,
        choices=sorted(path.stem for path in CONFIGS.glob("model/*.yaml")),
        metavar="MODEL",
        help="of the ladder (default: resnet20 resnet110)",
    )
    options.add_argument(
        "--no-compile", action="store_true", help="leave out torch.compile (minutes of compiling)"
    )
    options.add_argument("--rounds", type=int, default=5, help="turns of each loop (default: %(default)s)")
    options.add_argument(
        "--seconds", type=float, default=1.0, help="of one turn, about (default: %(default)s)"
    )
    options.add_argument(
        "--minutes",
        type=float,
        default=8.0,
        help="for everything, but at least one round each (default: %(default)s)",
    )
    options.add_argument(
        "--show",
        type=folder,
        nargs="+",
        metavar="CSV",
        help="measure nothing; print the tables of these files",
    )
    options.add_argument(
        "--into", type=folder, metavar="PAGE", help="also put the tables between the page's markers"
    )
    arguments = options.parse_args()
    from anchorloss.benchmark.rows import read_csv
    from anchorloss.benchmark.tables import insert, to_markdown
    from anchorloss.runs.files import write_atomically
    from anchorloss.runs.reading import read_file

    page = None if arguments.into is None else read_file(arguments.into)
    if arguments.into is not None and page is None:
        raise UserError(f"--into {arguments.into}: there is no such file; name a page")
    paths = arguments.show or [_measure(arguments)]
    rows = [row for path in paths for row in read_csv(path)]
    show(to_markdown(rows))
    if page is not None:
        write_atomically(arguments.into, insert(page.decode(), rows).encode())
    if arguments.show is None:
        print(f"written: {paths[0]} and {paths[0].with_suffix('.md').name}")


def _measure(arguments: argparse.Namespace) -> Path:
    """Measure, and write both files as rows are measured."""
    if arguments.rounds < 1 or not 0 < arguments.seconds < inf or not 0 < arguments.minutes < inf:
        raise UserError("--rounds, --seconds and --minutes: must be finite numbers above 0")
    from anchorloss.benchmark import measure
    from anchorloss.benchmark.rows import to_csv
    from anchorloss.benchmark.tables import to_markdown
    from anchorloss.device import describe, resolve_device, slug
    from anchorloss.runs.files import write_results

    device = resolve_device(arguments.device)
    path = unused(arguments.results_dir / "bench" / f"{slug(describe(device))}.csv")
    rows = [*measure.provenance_rows(device), measure.load_row("before")]

    def write(more: list[Row]) -> None:
        """Replace both files by ones that also have what has been measured since."""
        table, page = to_csv([*rows, *more]), to_markdown([*rows, *more])
        write_results(path.parent, {path.name: table.encode(), f"{path.stem}.md": page.encode()})

    write_results(path.parent, {})  # so that a folder that cannot be made is no surprise after measuring
    parts = _parts(arguments, device)
    for number, (title, part) in enumerate(parts):
        print(title, flush=True)
        now = time.monotonic()
        # What a part does not use is left to those after it.
        deadline = now + (BEGUN + 60 * arguments.minutes - now) / (len(parts) - number)
        found: list[Row] = []
        for found in part(deadline):
            write(found)
        rows += found
    write([measure.load_row("after")])
    return path


def _parts(
    arguments: argparse.Namespace, device: torch.device
) -> list[tuple[str, Callable[[float], Iterable[list[Row]]]]]:
    """What is measured: a title, and a function from a deadline to the part's rows as they are after each round."""
    from anchorloss.benchmark import measure

    def effort(deadline: float, most: int = arguments.rounds) -> measure.Effort:
        return measure.Effort(min(most, arguments.rounds), arguments.seconds, deadline)

    def ladder(model: str) -> Callable[[float], Iterable[list[Row]]]:
        runs = 2 if device.type == "cpu" else 8
        compile = not arguments.no_compile
        return lambda end: measure.measure_ladder(model, device, runs, effort(end), compile=compile)

    parts: list[tuple[str, Callable[[float], Iterable[list[Row]]]]] = []
    if "ladder" in arguments.only:
        parts.append(("ceilings", lambda end: [measure.measure_ceilings(device, effort(end))]))
        parts.append(("operations and bytes", lambda end: [measure.work_rows(arguments.models)]))
        parts += [(f"ladder, {model}", ladder(model)) for model in arguments.models]
    if "operators" in arguments.only and device.type == "cpu":
        parts.append(("operators", lambda end: [measure.measure_operators(arguments.models, effort(end, 3))]))
    if "concurrent" in arguments.only:
        model = "resnet20" if device.type == "cpu" else "resnet110"
        parts.append(
            (
                "several runs at once",
                lambda end: measure.measure_concurrent(model, device, COUNTS, effort(end, 3)),
            )
        )
    if "growth" in arguments.only:
        parts.append(("growing work", lambda end: measure.measure_growth(*GROWTH, device, effort(end, 3))))
    return parts


if __name__ == "__main__":
    run(main)
