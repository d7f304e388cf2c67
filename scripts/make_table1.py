"""Make a table of an experiment from its run records, and print it: results/<experiment>/table1.{md,tex,csv}.

Runs that differ in more than loss and seed get a row for each combination of what was swept, in settings.{md,csv}.
--by asks for another table: a row for each loss (table1), for each combination of settings (settings), for each precision
against fp32 (precision), for each run (runs.md) or for each epoch of each run (curves.md).

--check makes every table under the results folder anew, in memory, and says which file differs (status 1).
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _common import parser, run, show


def main() -> None:
    from anchorloss.analysis import table
    from anchorloss.runs.files import write_results

    options = parser(__doc__, experiment="table1")
    options.add_argument(
        "--by", choices=table.KINDS, help="what has a row (default: loss, or settings of a sweep)"
    )
    options.add_argument("--reference", metavar="LOSS", help="the loss to compare with (default: bce)")
    options.add_argument(
        "--beside", metavar="EXPERIMENT", help="with --by: include its runs of the same losses and seeds"
    )
    options.add_argument(
        "--check", action="store_true", help="say which committed table differs from its records"
    )
    arguments = options.parse_args()
    if arguments.check:
        raise SystemExit(check(arguments.results_dir))
    folder = arguments.results_dir / arguments.experiment
    texts = table.make(
        arguments.results_dir, arguments.experiment, arguments.by, arguments.reference, arguments.beside
    )
    write_results(folder, {name: text.encode() for name, text in texts.items()})
    show(next(iter(texts.values())))
    print(f"\nwritten: {', '.join(str(folder / name) for name in texts)}")


def check(results_dir: Path) -> int:
    """Compare every table under `results_dir` with what its records give; 1 if one differs."""
    import variance

    from anchorloss.analysis import frame, model_card, table

    makers = {
        "table1.md": lambda name: table.make(results_dir, name, "loss"),
        "settings.md": lambda name: table.make(results_dir, name, "settings"),
        "precision.md": lambda name: table.make(results_dir, name, "precision"),
        "runs.md": lambda name: table.make(results_dir, name, "run"),
        "curves.md": lambda name: table.make(results_dir, name, "epoch"),
        "statistics.md": lambda name: {"statistics.md": table.statistics(frame.runs(name, results_dir))},
        "variance.md": lambda name: {"variance.md": variance.report(frame.runs(name, results_dir))},
        "MODEL_CARD.md": lambda name: {"MODEL_CARD.md": model_card.make(results_dir, name)},
    }
    found = {path: maker for name, maker in makers.items() for path in sorted(results_dir.glob(f"*/{name}"))}
    differing, count = [], 0
    for path, maker in found.items():
        for name, text in maker(path.parent.name).items():
            file, count = path.with_name(name), count + 1
            if not file.exists() or file.read_bytes() != text.encode():
                differing.append(file)
    for file in differing:
        print(f"{file}: is not what its records give")
    print(f"{count} files of tables: {len(differing) or 'no byte'} differ{'' if differing else 's'}")
    return 1 if differing else 0


if __name__ == "__main__":
    run(main)
