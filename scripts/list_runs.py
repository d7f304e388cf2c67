"""Every run of an experiment and the settings in which they differ: results/<experiment>/runs.md; print it too."""

from __future__ import annotations

import argparse
from pathlib import Path

from anchorloss.errors import one_line_errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", default="select_small", help="which runs (default: %(default)s)")
    parser.add_argument("--results-dir", type=Path, default=Path("results"), help="default: %(default)s")
    arguments = parser.parse_args()
    with one_line_errors():
        from anchorloss.analysis.listing import list_runs
        from anchorloss.runs.atomic import write_results

        text = list_runs(arguments.results_dir, arguments.experiment)
        write_results(arguments.results_dir / arguments.experiment, {"runs.md": text.encode()})
        print(text, end="")


if __name__ == "__main__":
    main()
