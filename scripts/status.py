"""Show where a sweep stands: which runs are finished, running, failed, interrupted, waiting; then the table so far."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _common import parser, run, show

from anchorloss.errors import UserError


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--experiment", help="which runs (default: all experiments)")
    arguments = options.parse_args()
    from anchorloss.report.status import experiments_of

    names = (
        [arguments.experiment] if arguments.experiment is not None else experiments_of(arguments.results_dir)
    )
    readable = [_show(arguments.results_dir, name) for name in names]
    if not all(readable):
        raise SystemExit(2)


def _show(results_dir: Path, experiment: str) -> bool:
    """Print one experiment; whether its runs could be read."""
    from anchorloss.report import settings_table, table_text
    from anchorloss.report.protocol import planned
    from anchorloss.report.records import finished
    from anchorloss.report.status import describe_runs, runs_of
    from anchorloss.report.table import build_table

    try:
        runs = runs_of(results_dir, experiment)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return False
    print(describe_runs(runs, experiment), end="\n\n")
    records = [run.record for run in runs if run.record is not None]
    if records:
        try:
            if settings_table.swept(finished(runs)):
                show(settings_table.to_markdown(settings_table.build(records, experiment)))
            else:
                show(table_text.to_markdown(build_table(runs, experiment, planned(experiment))))
        except UserError as error:
            show(f"No table: {error}")
        print(flush=True)
    return True


if __name__ == "__main__":
    run(main)
