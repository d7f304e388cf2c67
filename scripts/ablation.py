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
        from anchorloss.ablation import draw, read_ablation, to_markdown
        from anchorloss.files import write_atomically

        ablation = read_ablation(arguments.results_dir, arguments.experiment, arguments.beside)
        folder = arguments.results_dir / arguments.experiment
        folder.mkdir(parents=True, exist_ok=True)
        text = to_markdown(ablation)
        write_atomically(folder / "ablation.md", text.encode())
        write_atomically(folder / "ablation.svg", draw(ablation))
        print(text, end="")


if __name__ == "__main__":
    main()
