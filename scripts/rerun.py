"""Train a recorded run again and say whether the same numbers come out.

With the record's settings and number of threads; at the record's commit, on its kind of device and with its versions,
they do, bit for bit on a CPU. Exit status 1 if they do not.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from anchorloss.errors import one_line_errors


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="its folder, as results/runs/table1_small/bce-…")
    parser.add_argument("--first-epoch", action="store_true", help="compare the first epoch alone")
    parser.add_argument("--data-root", default="data", help="where the data set is (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    parser.add_argument(
        "--into",
        type=Path,
        metavar="DIR",
        help="keep the new run in this results folder, and go on from there",
    )
    arguments = parser.parse_args()
    try:
        with one_line_errors():
            from anchorloss.sweep.rerun import rerun

            found = rerun(
                arguments.run,
                arguments.data_root,
                first_epoch=arguments.first_epoch,
                device=arguments.device,
                into=arguments.into,
            )
    except KeyboardInterrupt:
        print("interrupted; nothing is kept of a first epoch", file=sys.stderr)
        raise SystemExit(130) from None
    what = "first epoch" if arguments.first_epoch else "record, history and predictions"
    if not found.differences:
        print(f"{found.run}: the same {what}, bit for bit")
    for key, (recorded, now) in found.differences.items():
        print(f"{found.run}: {key} is {recorded} in the record, {now} now")
    for key, (recorded, now) in found.circumstances.items():
        print(f"  {key}: {recorded} then, {now} now")
    raise SystemExit(1 if found.differences else 0)


if __name__ == "__main__":
    main()
