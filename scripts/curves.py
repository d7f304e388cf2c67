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
        from anchorloss.curves import draw, read_curves, to_markdown
        from anchorloss.files import write_atomically

        curves = read_curves(arguments.results_dir, arguments.experiment)
        folder = arguments.results_dir / arguments.experiment
        folder.mkdir(parents=True, exist_ok=True)
        text = to_markdown(curves)
        write_atomically(folder / "curves.md", text.encode())
        write_atomically(folder / "curves.svg", draw(curves))
        print(text, end="")


if __name__ == "__main__":
    main()
