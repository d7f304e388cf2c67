"""Make Table 1 from the run records of an experiment: results/<experiment>/table1.{md,tex,csv}; print it too."""

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
        from anchorloss.analysis.table_text import make_table, to_markdown

        print(to_markdown(make_table(arguments.results_dir, arguments.experiment)), end="")


if __name__ == "__main__":
    main()
