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
    options.add_argument(
        "--unfinished",
        action="store_true",
        help="also take the newest checkpoint of each run that has not ended, to go on from it here",
    )
    arguments = options.parse_args()
    from anchorloss.runs.merge import copy_run, plan_merge

    copies, skipped = plan_merge(arguments.sources, arguments.into)
    for source, target in copies:
        copy_run(source, target)
        print(f"copied  {source.folder} to {target}")
    copied = len(copies)
    if arguments.unfinished:
        from anchorloss.runs.unfinished import copy_unfinished, plan_unfinished

        found, left = plan_unfinished(arguments.sources, arguments.into)
        skipped = [line for line in skipped if not line.endswith("not ended")] + left
        copied += len(found)
        for checkpoint in found:
            copy_unfinished(checkpoint)
            at = "{} epochs and {} steps".format(*checkpoint.step)
            print(f"copied  {checkpoint.run.folder} at {at} to {checkpoint.target}")
    for line in skipped:
        print(f"skipped {line}")
    print(f"{copied} copied, {len(skipped)} skipped")


if __name__ == "__main__":
    run(main)
