"""Compare variants of one loss with the loss itself: results/<experiment>/ablation.{md,svg}; print the Markdown."""

from __future__ import annotations

from _common import parser, run, show


def main() -> None:
    options = parser(__doc__, experiment="ablation_small")
    options.add_argument(
        "--beside", default="table1_small", help="the experiment with the loss itself (default: %(default)s)"
    )
    arguments = options.parse_args()
    from anchorloss.analysis.ablation import draw, read_ablation, to_markdown
    from anchorloss.runs.atomic import write_results

    ablation = read_ablation(arguments.results_dir, arguments.experiment, arguments.beside)
    text = to_markdown(ablation)
    contents = {"ablation.md": text.encode(), "ablation.svg": draw(ablation)}
    write_results(arguments.results_dir / arguments.experiment, contents)
    show(text)


if __name__ == "__main__":
    run(main)
