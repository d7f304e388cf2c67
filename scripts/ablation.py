"""Compare variants of one loss with the loss itself: results/<experiment>/ablation.{md,svg}; print the Markdown."""

from __future__ import annotations

from _common import parser, publish, run


def main() -> None:
    options = parser(__doc__, experiment="ablation_small")
    options.add_argument(
        "--beside", default="table1_small", help="the experiment with the loss itself (default: %(default)s)"
    )
    arguments = options.parse_args()
    from anchorloss.report.ablation import draw, read_ablation, to_markdown

    ablation = read_ablation(arguments.results_dir, arguments.experiment, arguments.beside)
    publish(arguments, "ablation", to_markdown(ablation), draw(ablation))


if __name__ == "__main__":
    run(main)
