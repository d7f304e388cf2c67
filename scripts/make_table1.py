"""Make Table 1 from the run records of an experiment: results/<experiment>/table1.{md,tex,csv}; print it too."""

from __future__ import annotations

from _common import parser, run


def main() -> None:
    arguments = parser(__doc__, experiment="table1").parse_args()
    from anchorloss.analysis.table_text import make_table, to_markdown

    print(to_markdown(make_table(arguments.results_dir, arguments.experiment)), end="")


if __name__ == "__main__":
    run(main)
