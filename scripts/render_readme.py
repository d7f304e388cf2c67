"""Fill the marked blocks of README.md and docs/ from files under results/; `--check` only says what would change.

A block stands between `<!-- begin: results/FILE -->` and `<!-- end -->` and shows that file, its title in bold; where
the file is not there, the block says that nothing has been run.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from _common import parser, run

from anchorloss.analysis.table import planned_table
from anchorloss.analysis.table_text import to_markdown
from anchorloss.errors import UserError
from anchorloss.runs.atomic import write_atomically

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"<!-- begin: (?P<path>[^ ]+) -->\n.*?<!-- end -->", re.DOTALL)


def render(text: str) -> str:
    """The text with every block made anew."""

    def fill(block: re.Match[str]) -> str:
        return f"<!-- begin: {block['path']} -->\n{_content(ROOT / block['path'])}\n<!-- end -->"

    return BLOCK.sub(fill, text)


def _content(path: Path) -> str:
    if path.exists():
        text = path.read_text()
    elif path == ROOT / "results" / "table1" / "table1.md":
        text = to_markdown(planned_table())
    else:
        return f"Not run: there is no `{path.relative_to(ROOT)}`."
    title, _, body = text.partition("\n")
    return f"**{title.removeprefix('# ')}**\n{body.rstrip()}"


def main() -> None:
    options = parser(__doc__, results_dir=None)
    options.add_argument("--check", action="store_true", help="exit with status 2 if a page would change")
    arguments = options.parse_args()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = path.read_text()
        rendered = render(text)
        if rendered == text:
            continue
        if arguments.check:
            raise UserError(f"{path.name}: is behind the results; run python scripts/render_readme.py")
        write_atomically(path, rendered.encode())
        print(f"{path.name}: updated", file=sys.stderr)
    print("all pages show the results")


if __name__ == "__main__":
    run(main)
