"""Make Table 1 from the run records of an experiment: results/<experiment>/table1.{md,tex,csv}; print it too.

Runs that differ in more than loss and seed get a row for each combination of what was swept, in settings.{md,csv}.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _common import parser, run, show


def main() -> None:
    options = parser(__doc__, experiment="table1")
    options.add_argument("--reference", metavar="LOSS", help="the loss to compare with (default: bce)")
    arguments = options.parse_args()
    from anchorloss.report import settings_table, table_text
    from anchorloss.report.comparison import REFERENCE
    from anchorloss.report.records import finished
    from anchorloss.runs.folder import read_runs

    results_dir, experiment, reference = arguments.results_dir, arguments.experiment, arguments.reference
    if settings_table.swept(finished(read_runs(results_dir, experiment))):
        show(
            settings_table.to_markdown(settings_table.make_settings_table(results_dir, experiment, reference))
        )
        print(f"\nwritten: {results_dir / experiment / 'settings'}.md and .csv")
    else:
        table = table_text.make_table(results_dir, experiment, reference or REFERENCE)
        show(table_text.to_markdown(table))
        print(f"\nwritten: {results_dir / experiment / 'table1'}.md, .tex and .csv")


if __name__ == "__main__":
    run(main)
