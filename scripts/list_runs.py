"""List the runs of an experiment and the settings in which they differ: results/<experiment>/runs.md; print it too."""

from __future__ import annotations

from _common import parser, run, show


def main() -> None:
    arguments = parser(__doc__, experiment="select_small").parse_args()
    from anchorloss.analysis.listing import list_runs
    from anchorloss.runs.atomic import write_results

    text = list_runs(arguments.results_dir, arguments.experiment)
    write_results(arguments.results_dir / arguments.experiment, {"runs.md": text.encode()})
    show(text)


if __name__ == "__main__":
    run(main)
