"""List the runs of an experiment and the settings in which they differ: results/<experiment>/runs.md; print it too."""

from __future__ import annotations

from _common import parser, publish, run


def main() -> None:
    arguments = parser(__doc__, experiment="select_small").parse_args()
    from anchorloss.report.listing import list_runs

    publish(arguments, "runs", list_runs(arguments.results_dir, arguments.experiment))


if __name__ == "__main__":
    run(main)
