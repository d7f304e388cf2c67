"""Draw Figure 1 of the supplement from the loss code: OUTPUT.svg and OUTPUT.png."""

from __future__ import annotations

from pathlib import Path

from _common import folder, parser, run

from anchorloss.errors import UserError
from anchorloss.runs.files import write_atomically

FORMATS = ("svg", "png")


def main() -> None:
    options = parser(__doc__, results_dir=None)
    options.add_argument(
        "--output",
        type=folder,
        default=Path("results/figure1"),
        help="path without .svg or .png (default: %(default)s)",
    )
    output: Path = options.parse_args().output
    if output.suffix in {f".{name}" for name in FORMATS}:
        raise UserError(
            f"--output {output}: both formats are written; leave {output.suffix} off: {output.with_suffix('')}"
        )
    if not output.name or output.is_dir():
        raise UserError(f"--output {output}: is a folder; give a file's name without .svg or .png")
    from anchorloss.report.figure1 import render

    output.parent.mkdir(parents=True, exist_ok=True)
    for name in FORMATS:
        path = output.with_name(f"{output.name}.{name}")
        write_atomically(path, render(name))
        print(path)


if __name__ == "__main__":
    run(main)
