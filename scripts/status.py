"""Say where a sweep stands: which runs are done, running, failed, interrupted, waiting; then the table so far."""

from __future__ import annotations

import argparse
from pathlib import Path

from anchorloss.errors import one_line_errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", help="which runs (default: all experiments)")
    parser.add_argument("--results-dir", type=Path, default=Path("results"), help="default: %(default)s")
    arguments = parser.parse_args()
    with one_line_errors():
        from anchorloss.analysis.protocol import planned
        from anchorloss.analysis.status import describe_runs, experiments_of, read_experiment
        from anchorloss.analysis.table import build_table
        from anchorloss.analysis.table_text import to_markdown

        names = [arguments.experiment] if arguments.experiment else experiments_of(arguments.results_dir)
        for name in names:
            runs = read_experiment(arguments.results_dir, name)
            print(describe_runs(runs, name), end="\n\n", flush=True)
            if any(run.record for run in runs):
                print(to_markdown(build_table(runs, name, planned(name))))


if __name__ == "__main__":
    main()
