"""How the runs of an experiment learn, from their histories: results/<experiment>/curves.{md,svg}; print the former."""

from __future__ import annotations

import argparse
from pathlib import Path

from anchorloss.errors import one_line_errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", default="table1_small", help="which runs (default: %(default)s)")
    parser.add_argument("--results-dir", type=Path, default=Path("results"), help="default: %(default)s")
    arguments = parser.parse_args()
    with one_line_errors():
        from anchorloss.analysis.curves import draw, read_curves, to_markdown
        from anchorloss.runs.atomic import write_results

        curves = read_curves(arguments.results_dir, arguments.experiment)
        text = to_markdown(curves)
        contents = {"curves.md": text.encode(), "curves.svg": draw(curves)}
        write_results(arguments.results_dir / arguments.experiment, contents)
        print(text, end="")


if __name__ == "__main__":
    main()
