"""Bring run folders from other machines together. Equal results merge; contradictions are refused and named."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _common import folder, parser, run


def main() -> None:
    options = parser(__doc__, results_dir=None)
    options.add_argument(
        "sources",
        nargs="+",
        type=folder,
        metavar="DIR",
        help="a results folder, its runs, or the folder of one experiment",
    )
    options.add_argument(
        "--into", type=folder, default=Path("results"), help="results folder (default: %(default)s)"
    )
    arguments = options.parse_args()
    from anchorloss.runs.merge import copy_run, plan_merge

    copies, skipped = plan_merge(arguments.sources, arguments.into)
    for source, target in copies:
        copy_run(source, target)
        print(f"copied  {source.folder} to {target}")
    for line in skipped:
        print(f"skipped {line}")
    print(f"{len(copies)} copied, {len(skipped)} skipped")


if __name__ == "__main__":
    run(main)
