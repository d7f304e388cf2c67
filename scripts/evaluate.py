"""Evaluate the weights that recorded runs kept, and say whether they give the record's numbers.

Top-1, Top-5 and every prediction are computed from weights.safetensors and the official images. On the record's kind of
processor, with its version of torch, they must be equal. Elsewhere rounding may change some predictions: their number is
printed. Exit status 1 if a number is wrong, 2 if a file is not the recorded one or the data set is missing.

With --weights and --model, evaluate any safetensors file.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _common import folder, parser, run

from anchorloss.errors import UserError

if TYPE_CHECKING:
    from anchorloss.sweep.reevaluate import Reevaluation


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "runs", nargs="*", type=folder, metavar="RUN_FOLDER", help="as results/runs/table1_resnet20/bce-…"
    )
    options.add_argument("--experiment", help="all runs of this experiment that kept their weights")
    options.add_argument("--data-root", default="data", help="where the data set is (default: %(default)s)")
    options.add_argument("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    own = options.add_argument_group("weights without a record")
    own.add_argument("--weights", type=folder, metavar="FILE", help="a safetensors file")
    own.add_argument(
        "--model", metavar="NAME", help="its network: resnet20 and the like, or package.module.function"
    )
    own.add_argument("--shortcut", default="A", choices=["A", "B"], help="default: %(default)s")
    own.add_argument(
        "--data", default="cifar100", choices=["cifar100", "cifar10"], help="default: %(default)s"
    )
    own.add_argument("--precision", default="fp32", choices=["fp32", "bf16"], help="default: %(default)s")
    arguments = options.parse_args()
    if (arguments.weights is None) != (arguments.model is None):
        raise UserError("--weights and --model go together: name the file and its network")
    if not (arguments.weights or arguments.runs or arguments.experiment):
        raise UserError("nothing to evaluate; name run folders, --experiment, or --weights and --model")
    from anchorloss.sweep.reevaluate import reevaluate, with_weights

    if arguments.weights is not None:
        _evaluate_file(arguments)
    folders = list(arguments.runs)
    if arguments.experiment:
        folders += with_weights(arguments.results_dir, arguments.experiment)
    found = reevaluate(folders, arguments.data_root, arguments.device)
    for each in found:
        _report(each)
    raise SystemExit(1 if any(each.problems for each in found) else 0)


def _evaluate_file(arguments: argparse.Namespace) -> None:
    from anchorloss.config.settings import DataSettings, ModelSettings
    from anchorloss.sweep.reevaluate import evaluate_file

    function = arguments.model if "." in arguments.model else None
    now = evaluate_file(
        arguments.weights,
        ModelSettings(arguments.model, arguments.shortcut, prior_bias=False, function=function),
        DataSettings(arguments.data, arguments.data_root),
        arguments.precision,
        arguments.device,
    )
    print(
        f"{arguments.weights}: Top-1 {now.top1:.2f} %, Top-5 {now.top5:.2f} % of {len(now.target):,} images"
    )


def _report(found: Reevaluation) -> None:
    record = found.record
    recorded = "" if found.different == 0 else f" (recorded: {record.top1:.2f} % and {record.top5:.2f} %)"
    print(f"{record.run}: Top-1 {found.now.top1:.2f} %, Top-5 {found.now.top5:.2f} %{recorded}")
    print(f"  {found.different:,} of {len(found.now.target):,} predictions differ from the record's")
    if found.elsewhere is not None:
        print(f"  recorded on {found.elsewhere}: rounding may differ here")
    for problem in found.problems:
        print(f"  WRONG: {problem}")


if __name__ == "__main__":
    run(main)
