"""Draw the learning curves of an experiment: results/<experiment>/curves.{md,svg}; print the Markdown."""

from __future__ import annotations

from _common import parser, run, show


def main() -> None:
    options = parser(__doc__, experiment="table1_small")
    options.add_argument("--reference", metavar="LOSS", help="show Top-1 minus that of LOSS, seed by seed")
    arguments = options.parse_args()
    from anchorloss.analysis.curves import draw, read_curves, to_markdown
    from anchorloss.runs.atomic import write_results

    curves = read_curves(arguments.results_dir, arguments.experiment, arguments.reference)
    text = to_markdown(curves)
    contents = {"curves.md": text.encode(), "curves.svg": draw(curves)}
    write_results(arguments.results_dir / arguments.experiment, contents)
    show(text)


if __name__ == "__main__":
    run(main)
