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
    from anchorloss.analysis.status import experiments_of

    one = arguments.experiment
    names = [one] if one is not None else experiments_of(arguments.results_dir)
    readable = [_show(arguments.results_dir, name) for name in names]
    if not all(readable):
        raise SystemExit(2)


def _show(results_dir: Path, experiment: str) -> bool:
    """Print one experiment; whether its runs could be read."""
    from anchorloss.analysis import frame, table
    from anchorloss.analysis.status import describe

    try:
        runs = frame.runs(experiment, results_dir)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return False
    print(describe(runs), end="\n\n")
    if runs["state"].isin(["finished", "failed"]).any():
        try:
            show(next(iter(table.make(results_dir, experiment).values())))
        except UserError as error:
            show(f"No table: {error}")
        print(flush=True)
    return True


if __name__ == "__main__":
    run(main)
