"""Draw the learning curves of an experiment: results/<experiment>/curves.{md,svg}; print the Markdown."""

from __future__ import annotations

from _common import parser, publish, run


def main() -> None:
    options = parser(__doc__, experiment="table1_small")
    options.add_argument("--reference", metavar="LOSS", help="show Top-1 minus that of LOSS, seed by seed")
    arguments = options.parse_args()
    from anchorloss.report.curves import draw, read_curves, to_markdown

    curves = read_curves(arguments.results_dir, arguments.experiment, arguments.reference)
    publish(arguments, "curves", to_markdown(curves), draw(curves))


if __name__ == "__main__":
    run(main)
