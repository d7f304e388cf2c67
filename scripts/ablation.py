"""One loss with other arguments against itself in a table: results/<experiment>/ablation.{md,svg}; print the former."""

from __future__ import annotations

import argparse
from pathlib import Path

from anchorloss.errors import one_line_errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", default="ablation_small", help="which runs (default: %(default)s)")
    parser.add_argument("--beside", default="table1_small", help="the table's (default: %(default)s)")
    parser.add_argument("--results-dir", type=Path, default=Path("results"), help="default: %(default)s")
    arguments = parser.parse_args()
    with one_line_errors():
        from anchorloss.analysis.ablation import draw, read_ablation, to_markdown
        from anchorloss.runs.atomic import write_results

        ablation = read_ablation(arguments.results_dir, arguments.experiment, arguments.beside)
        text = to_markdown(ablation)
        contents = {"ablation.md": text.encode(), "ablation.svg": draw(ablation)}
        write_results(arguments.results_dir / arguments.experiment, contents)
        print(text, end="")


if __name__ == "__main__":
    main()
