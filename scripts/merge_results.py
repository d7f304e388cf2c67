"""Bring run folders from other machines together. Equal results merge; contradictions are refused and named."""

from __future__ import annotations

import argparse
from pathlib import Path

from anchorloss.errors import one_line_errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "sources",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="a results folder, its runs, or the folder of one experiment",
    )
    parser.add_argument(
        "--into", type=Path, default=Path("results"), help="results folder (default: %(default)s)"
    )
    arguments = parser.parse_args()
    with one_line_errors():
        from anchorloss.runs.merge import copy_run, plan_merge

        merge = plan_merge(arguments.sources, arguments.into)
        for run, target in merge.copies:
            copy_run(run, target)
            print(f"copied  {run.folder} to {target}")
        for line in merge.skipped:
            print(f"skipped {line}")
        print(f"{len(merge.copies)} copied, {len(merge.skipped)} skipped")


if __name__ == "__main__":
    main()
