"""Evaluate the weights that recorded runs kept, and say whether they give the record's numbers.

Top-1, Top-5 and every prediction are computed from weights.safetensors and the official images. On the record's kind of
processor, with its version of torch, they must be equal. Elsewhere rounding may change some predictions: their number is
printed. Exit status 1 if a number is wrong, 2 if a file is not the recorded one or the data set is missing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _common import folder, parser, run

from anchorloss.errors import UserError

if TYPE_CHECKING:
    from anchorloss.sweep.verify import Reevaluation


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "runs", nargs="*", type=folder, metavar="RUN_FOLDER", help="as results/runs/table1_resnet20/bce-…"
    )
    options.add_argument("--experiment", help="all runs of this experiment that kept their weights")
    options.add_argument("--data-root", default="data", help="where the data set is (default: %(default)s)")
    options.add_argument("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    options.add_argument(
        "--trust-code", action="store_true", help="run functions that are no code of this checkout, too"
    )
    arguments = options.parse_args()
    if not (arguments.runs or arguments.experiment):
        raise UserError("nothing to evaluate; name run folders or --experiment")
    from anchorloss.sweep.trust import require_trusted
    from anchorloss.sweep.verify import reevaluate, with_weights

    folders = list(arguments.runs)
    if arguments.experiment:
        folders += with_weights(arguments.results_dir, arguments.experiment)
    if not arguments.trust_code:
        require_trusted(folders)
    found = reevaluate(folders, arguments.data_root, arguments.device)
    for each in found:
        _report(each)
    raise SystemExit(1 if any(each.problem for each in found) else 0)


def _report(found: Reevaluation) -> None:
    record = found.record
    recorded = "" if found.different == 0 else f" (recorded: {record.top1:.2f} % and {record.top5:.2f} %)"
    print(f"{record.run}: Top-1 {found.now.top1:.2f} %, Top-5 {found.now.top5:.2f} %{recorded}")
    print(f"  {found.different:,} of {len(found.now.target):,} predictions differ from the record's")
    if found.elsewhere is not None:
        print(f"  recorded on {found.elsewhere}: rounding may differ here")
    if found.problem is not None:
        print(f"  WRONG: {found.problem}")


if __name__ == "__main__":
    run(main)
