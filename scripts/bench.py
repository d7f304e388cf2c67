"""Measure the training loop against the textbook's, and against what this device can do.

Writes results/bench/DEVICE.csv and .md; a device that has them gets new ones with the date, nothing is overwritten.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from math import inf
from pathlib import Path

from _common import folder, parser, run, show

from anchorloss.errors import RunError, UserError

MODELS = ("resnet20", "resnet110")
COUNTS = (1, 2, 4, 8, 16)
GROWTH = (("resnet20", "resnet56", "resnet110"), (128, 512))
SECTIONS = ("ladder", "operators", "concurrent", "growth")


def known_models() -> list[str]:
    """The networks that configs/model names."""
    return sorted(path.stem for path in (Path(__file__).parents[1] / "configs" / "model").glob("*.yaml"))


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    options.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="default: all")
    options.add_argument(
        "--models",
        nargs="+",
        default=MODELS,
        choices=known_models(),
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
        "--minutes", type=float, default=8.0, help="begin no round later (default: %(default)s)"
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
    from anchorloss.runs.atomic import write_atomically
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
    """Measure, and write both files. Raises: UserError for a wrong argument, RunError if a file cannot be written."""
    if arguments.rounds < 1 or not 0 < arguments.seconds < inf or not 0 < arguments.minutes < inf:
        raise UserError("--rounds, --seconds and --minutes: must be finite numbers above 0")
    from anchorloss.benchmark import measure
    from anchorloss.benchmark.rows import to_csv
    from anchorloss.benchmark.tables import to_markdown
    from anchorloss.device import describe, resolve_device, slug
    from anchorloss.runs.atomic import write_once

    device = resolve_device(arguments.device)
    parts = len(arguments.models) * ("ladder" in arguments.only) + len(arguments.only)
    effort = measure.Effort(arguments.rounds, arguments.seconds, arguments.minutes / parts)
    fewer = measure.Effort(min(3, arguments.rounds), arguments.seconds, arguments.minutes / parts)
    rows = [*measure.provenance_rows(device), measure.load_row("before")]
    runs = 2 if device.type == "cpu" else 8
    if "ladder" in arguments.only:
        print("ceilings", flush=True)
        rows += measure.measure_ceilings(device, effort)
        for model in arguments.models:
            print(f"ladder, {model}", flush=True)
            rows += measure.measure_ladder(model, device, runs, effort, compile=not arguments.no_compile)
        rows += measure.work_rows(arguments.models)
    if "operators" in arguments.only and device.type == "cpu":
        print("operators", flush=True)
        rows += measure.measure_operators(arguments.models, fewer)
    if "concurrent" in arguments.only:
        print("several runs at once", flush=True)
        model = "resnet20" if device.type == "cpu" else "resnet110"
        rows += measure.measure_concurrent(model, device, COUNTS, fewer)
    if "growth" in arguments.only:
        print("growing work", flush=True)
        rows += measure.measure_growth(*GROWTH, device, fewer)
    rows.append(measure.load_row("after"))
    folder = arguments.results_dir / "bench"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made: {error.strerror}; name another --results-dir") from error
    name = slug(describe(device))
    if (folder / f"{name}.csv").exists():
        name += f"-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    write_once(folder / f"{name}.csv", to_csv(rows).encode())
    write_once(folder / f"{name}.md", to_markdown(rows).encode())
    return folder / f"{name}.csv"


if __name__ == "__main__":
    run(main)
