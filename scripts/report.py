"""Make the report of an experiment from its run records: results/<experiment>/report.html, one file, opens offline.

Beside it are written statistics.md, the verdicts in words, and curves.svg, Top-1 by epoch.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _common import parser, run


def main() -> None:
    options = parser(__doc__, experiment="table1")
    options.add_argument("--reference", default="bce", metavar="LOSS", help="compare with it (default: bce)")
    arguments = options.parse_args()
    from anchorloss.analysis.report import write_report

    print(write_report(arguments.results_dir, arguments.experiment, arguments.reference))


if __name__ == "__main__":
    run(main)
