"""Make Table 1 from the run records of an experiment: results/<experiment>/table1.{md,tex,csv}; print it too."""

from __future__ import annotations

from _common import parser, run, show


def main() -> None:
    arguments = parser(__doc__, experiment="table1").parse_args()
    from anchorloss.analysis.table_text import make_table, to_markdown

    show(to_markdown(make_table(arguments.results_dir, arguments.experiment)))
    print(f"\nwritten: {arguments.results_dir / arguments.experiment / 'table1'}.md, .tex and .csv")


if __name__ == "__main__":
    run(main)
