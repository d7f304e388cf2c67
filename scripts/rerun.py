"""Train a recorded run again and say whether the same numbers come out.

With the record's settings and number of threads; at the record's commit, on its kind of device and with its versions,
they do, bit for bit on a CPU. Exit status 1 if they do not.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _common import folder, parser, run


def main() -> None:
    options = parser(__doc__, results_dir=None)
    options.add_argument("run", type=folder, help="its folder, as results/runs/table1_small/bce-…")
    options.add_argument("--first-epoch", action="store_true", help="compare the first epoch alone")
    options.add_argument("--data-root", default="data", help="where the data set is (default: %(default)s)")
    options.add_argument("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    options.add_argument(
        "--into",
        type=folder,
        metavar="DIR",
        help="keep the new run in this results folder, and go on from there",
    )
    options.add_argument(
        "--trust-code", action="store_true", help="run functions that are no code of this checkout, too"
    )
    arguments = options.parse_args()
    from anchorloss.sweep.trust import require_trusted
    from anchorloss.sweep.verify import rerun

    if not arguments.trust_code:
        require_trusted([arguments.run])
    record, differences, circumstances = rerun(
        arguments.run,
        arguments.data_root,
        first_epoch=arguments.first_epoch,
        device=arguments.device,
        into=arguments.into,
    )
    what = "first epoch" if arguments.first_epoch else "record, history and predictions"
    if not differences:
        print(f"{record.run}: the same {what}, bit for bit")
    for key, (recorded, now) in differences.items():
        print(f"{record.run}: {key} is {recorded} in the record, {now} now")
    for key, (recorded, now) in circumstances.items():
        print(f"  {key}: {recorded} then, {now} now")
    raise SystemExit(1 if differences else 0)


if __name__ == "__main__":
    run(main)
