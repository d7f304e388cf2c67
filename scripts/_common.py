"""What the scripts share: their arguments, and how an error ends them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

# Pictures need no window; Jupyter and Colab export a backend that only they have.
os.environ["MPLBACKEND"] = "agg"
# The package that stands beside the scripts, whichever is installed; Python's safe path has neither.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from anchorloss.errors import one_line_errors
from anchorloss.terminal import plain_text


def parser(
    description: str | None, *, experiment: str | None = None, results_dir: str | None = "results"
) -> argparse.ArgumentParser:
    """An argument parser with `--experiment` and `--results-dir`.

    Args:
        description: The script's docstring, shown by `--help` as it stands.
        experiment: The default of `--experiment`; None leaves the argument out.
        results_dir: The default of `--results-dir`; None leaves the argument out.
    """
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if experiment is not None:
        made.add_argument("--experiment", default=experiment, help="which runs (default: %(default)s)")
    if results_dir is not None:
        made.add_argument(
            "--results-dir", type=folder, default=Path(results_dir), help="default: %(default)s"
        )
    return made


def folder(text: str) -> Path:
    """An argument that names a file or folder; an empty one would mean the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return Path(text)


def unused(path: Path) -> Path:
    """`path`, or where there is such a file, the same with the time in its name: a measurement is never overwritten."""
    if not path.exists():
        return path
    return path.with_name(f"{path.stem}-{datetime.now(UTC):%Y%m%d-%H%M%S}{path.suffix}")


def publish(arguments: argparse.Namespace, name: str, markdown: str) -> None:
    """Write results/<experiment>/<name>.md and print it."""
    from anchorloss.runs.files import write_results

    write_results(arguments.results_dir / arguments.experiment, {f"{name}.md": markdown.encode()})
    show(markdown)


def show(markdown: str) -> None:
    """Print Markdown as plain text that fits the terminal."""
    print(plain_text(markdown))


def run(main: Callable[[], None]) -> None:
    """Run a script's `main`, and end with one line where it fails."""
    with one_line_errors():
        main()
