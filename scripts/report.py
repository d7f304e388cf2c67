"""Make the report of an experiment from its run records: results/<experiment>/report.html, one file, opens offline."""

from __future__ import annotations

import argparse
from pathlib import Path

from anchorloss.errors import one_line_errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", default="table1", help="which runs (default: %(default)s)")
    parser.add_argument("--results-dir", type=Path, default=Path("results"), help="default: %(default)s")
    arguments = parser.parse_args()
    with one_line_errors():
        from anchorloss.report.page import write_report

        print(write_report(arguments.results_dir, arguments.experiment))


if __name__ == "__main__":
    main()
