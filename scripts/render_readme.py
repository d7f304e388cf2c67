"""Fill README.md and docs/ from the results; `--check` only says what would change.

First the answer, the table and the figure that open the README are made anew from the run records. Then every block
between `<!-- begin: results/FILE -->` and `<!-- end -->` gets the text of that file, a title in bold.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _common import parser, run

from anchorloss.analysis import answer
from anchorloss.errors import UserError
from anchorloss.runs.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
BLOCK = re.compile(r"<!-- begin: (?P<path>[^ ]+) -->\n.*?<!-- end -->", re.DOTALL)


def render(text: str) -> str:
    """The text with every block made anew."""

    def fill(block: re.Match[str]) -> str:
        shown = re.sub(r"\A# (.*)", r"**\1**", (ROOT / block["path"]).read_text().rstrip())
        return f"<!-- begin: {block['path']} -->\n{shown}\n<!-- end -->"

    return BLOCK.sub(fill, text)


def main() -> None:
    options = parser(__doc__, results_dir=None)
    options.add_argument("--check", action="store_true", help="exit with status 2 if a page would change")
    check = options.parse_args().check

    def update(path: Path, content: bytes) -> None:
        if path.exists() and path.read_bytes() == content:
            return
        if check:
            raise UserError(
                f"{path.relative_to(ROOT)}: is behind the results; run python scripts/render_readme.py"
            )
        write_atomically(path, content)
        print(f"{path.relative_to(ROOT)}: updated", file=sys.stderr)

    (RESULTS / "answer").mkdir(exist_ok=True)
    for name, content in answer.readme(RESULTS).items():
        update(RESULTS / "answer" / name, content)
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        update(path, render(path.read_text()).encode())
    print("all pages show the results")


if __name__ == "__main__":
    run(main)
