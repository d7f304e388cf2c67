"""Compare bf16 with fp32 from the records of an experiment: results/<experiment>/precision.md; print it too."""

from __future__ import annotations

from _common import parser, publish, run


def main() -> None:
    options = parser(__doc__, experiment="precision_small")
    options.add_argument("--beside", metavar="EXPERIMENT", help="include the runs of this experiment")
    arguments = options.parse_args()
    from anchorloss.report.bf16 import compare_precisions

    text = compare_precisions(arguments.results_dir, arguments.experiment, arguments.beside)
    publish(arguments, "precision", text)


if __name__ == "__main__":
    run(main)
