"""Draw Figure 1 of the supplement from the loss code: OUTPUT.svg and OUTPUT.png."""

from __future__ import annotations

import argparse
from pathlib import Path

from anchorloss.errors import UserError, one_line_errors
from anchorloss.runs.atomic import write_atomically

FORMATS = ("svg", "png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("results/figure1"),
        help="path without .svg or .png (default: %(default)s)",
    )
    output: Path = parser.parse_args().output
    with one_line_errors():
        if output.suffix in {f".{name}" for name in FORMATS}:
            raise UserError(
                f"--output {output}: both formats are written; leave {output.suffix} off: {output.with_suffix('')}"
            )
        if not output.name or output.is_dir():
            raise UserError(f"--output {output}: is a folder; give a file's name without .svg or .png")
        from anchorloss.analysis.figure1 import render

        output.parent.mkdir(parents=True, exist_ok=True)
        for name in FORMATS:
            path = output.with_name(f"{output.name}.{name}")
            write_atomically(path, render(name))
            print(path)


if __name__ == "__main__":
    main()
