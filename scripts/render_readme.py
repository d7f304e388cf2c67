"""Fill README.md and docs/ from the results; `--check` only says what would change.

First the tables, the answer and its figure that open the README are made anew from the run records. Then every block
between `<!-- begin: results/FILE -->` and `<!-- end -->` gets the text of that file, a title in bold; where the file is
not there, the block says that nothing has been run.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _common import parser, run

from anchorloss.analysis import table
from anchorloss.errors import UserError
from anchorloss.report import answer, answer_figure
from anchorloss.runs.files import write_atomically, write_results

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
BLOCK = re.compile(r"<!-- begin: (?P<path>[^ ]+) -->\n.*?<!-- end -->", re.DOTALL)


def render(text: str) -> str:
    """The text with every block made anew."""

    def fill(block: re.Match[str]) -> str:
        return f"<!-- begin: {block['path']} -->\n{_content(ROOT / block['path'])}\n<!-- end -->"

    return BLOCK.sub(fill, text)


def _content(path: Path) -> str:
    if path.exists():
        text = path.read_text()
    else:
        return f"Not run: there is no `{path.relative_to(ROOT)}`."
    title, _, body = text.partition("\n")
    if not title.startswith("# "):
        return text.rstrip()
    return f"**{title.removeprefix('# ')}**\n{body.rstrip()}"


def made_from_records(answers: list[answer.Answer]) -> Mapping[Path, bytes]:
    """The files under results/ that the README opens with, as the records of `answers` give them."""
    tables = {
        RESULTS / one.experiment / name: text.encode()
        for one in answers
        for name, text in table.make(RESULTS, one.experiment, "loss").items()
    }
    figures = {
        RESULTS / "answer" / f"differences-{theme}.svg": answer_figure.draw(answers, dark=theme == "dark")
        for theme in ("light", "dark")
    }
    return {
        RESULTS / "answer" / "answer.md": f"{answer.to_markdown(answers)}\n".encode(),
        **figures,
        **tables,
    }


def main() -> None:
    options = parser(__doc__, results_dir=None)
    options.add_argument("--check", action="store_true", help="exit with status 2 if a page would change")
    arguments = options.parse_args()
    answers = answer.read_answers(RESULTS)
    for path, content in made_from_records(answers).items():
        if path.exists() and path.read_bytes() == content:
            continue
        if arguments.check:
            raise UserError(f"{path}: is behind the records; run python scripts/render_readme.py")
        write_results(path.parent, {path.name: content})
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
