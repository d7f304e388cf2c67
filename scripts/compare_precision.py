"""bf16 against fp32 from the records of an experiment: results/<experiment>/precision.md; print it too."""

from __future__ import annotations

import argparse
from pathlib import Path

from anchorloss.errors import one_line_errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", default="precision_small", help="which runs (default: %(default)s)")
    parser.add_argument("--beside", metavar="EXPERIMENT", help="whose runs count too (default: none)")
    parser.add_argument("--results-dir", type=Path, default=Path("results"), help="default: %(default)s")
    arguments = parser.parse_args()
    with one_line_errors():
        from anchorloss.analysis.bf16 import compare_precisions
        from anchorloss.runs.atomic import write_results

        text = compare_precisions(arguments.results_dir, arguments.experiment, arguments.beside)
        write_results(arguments.results_dir / arguments.experiment, {"precision.md": text.encode()})
        print(text, end="")


if __name__ == "__main__":
    main()
