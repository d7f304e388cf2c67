"""Output on a terminal: streams that never fail, escaped control characters, tables as plain text."""

from __future__ import annotations

import codecs
import os
import re
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any, TextIO, cast


class SafeStream:
    """A text stream that never raises: what cannot be written is dropped, and `failure` keeps the first reason."""

    def __init__(self, stream: TextIO | None, *, escape: bool) -> None:
        # Python has no stream where the descriptor was closed from the start.
        self._stream = stream if stream is not None else cast(TextIO, Path(os.devnull).open("w"))  # noqa: SIM115
        self._escape = escape
        self.failure: OSError | None = None
        if hasattr(self._stream, "reconfigure"):
            self._stream.reconfigure(errors=_PLAIN_ASCII)

    def write(self, text: str) -> int:
        self._attempt(self._stream.write, escape(text) if self._escape else text)
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def _attempt(self, action: Callable[..., Any], *arguments: str) -> None:
        if self.failure is not None:
            return
        try:
            action(*arguments)
        except OSError as error:
            self.failure = error
            # Python writes what is left in the buffer when it exits.
            with suppress(OSError):
                nothing = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nothing, self._stream.fileno())
                os.close(nothing)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def safe_output() -> Iterator[SafeStream]:
    """Make stdout and stderr `SafeStream`s, and escape control characters on stdout. Yields stdout."""
    before = sys.stdout, sys.stderr
    stdout, stderr = SafeStream(before[0], escape=True), SafeStream(before[1], escape=False)
    sys.stdout, sys.stderr = cast(TextIO, stdout), cast(TextIO, stderr)
    try:
        yield stdout
    finally:
        stdout.flush()
        stderr.flush()
        sys.stdout, sys.stderr = before


def counted(number: int, noun: str) -> str:
    """The number with its noun: "1 run", "2 runs"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def escape(text: str) -> str:
    """The text with control and formatting characters written as escapes; line breaks and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) for character in text)


def printable(text: str) -> str:
    """A name from the system as one line of at most 200 printable characters; others become a question mark."""
    return "".join(character if character.isprintable() else "?" for character in text[:200])


def _escaped(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Zl", "Zp"):
        return character
    return character.encode("unicode_escape").decode()


_SIMILAR = str.maketrans(
    {"\u2014": "-", "\u2013": "-", "\u2212": "-", "±": "+-", "\u00d7": "x", "≥": ">=", "≤": "<=", "…": "..."}
)
_PLAIN_ASCII = "anchorloss.plain-ascii"


def _plain_ascii(error: UnicodeError) -> tuple[str, int]:
    """A codec error handler: characters that an encoding lacks become similar ASCII, or an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end].translate(_SIMILAR)
    return missing.encode("ascii", "backslashreplace").decode(), error.end


codecs.register_error(_PLAIN_ASCII, _plain_ascii)


def plain_text(markdown: str, width: int | None = None) -> str:
    """Markdown as plain text for a terminal: wrapped prose, and tables that are split where they are too wide.

    Args:
        markdown: Paragraphs, one a line, and tables.
        width: The columns of the terminal; None asks it, and takes 80 where there is none.
    """
    width = width or shutil.get_terminal_size((80, 24)).columns
    text: list[str] = []
    for is_table, group in groupby(markdown.splitlines(), lambda line: line.startswith("|")):
        lines = list(group)
        text += _table(lines, width) if is_table else [_prose(line, width) for line in lines]
    return "\n".join(text)


def _prose(line: str, width: int) -> str:
    text = re.sub(r"^#+ |\*\*", "", line)
    return textwrap.fill(
        text,
        width,
        subsequent_indent="  " * text.startswith("- "),
        break_on_hyphens=False,
        break_long_words=False,
    )


def _table(lines: list[str], width: int) -> list[str]:
    header, rule, *body = [_cells(line) for line in lines]
    rows = [row + [""] * (len(header) - len(row)) for row in body]
    widths: list[int] = []
    for column, name in enumerate(header):
        room = width if not widths else max(width - 2 - widths[0], 20)
        longest = max(len(text) for text in ("", *name.split(), *(row[column] for row in rows)))
        widths.append(min(longest, room))
    text: list[str] = []
    for columns in _parts(widths, width):
        for row in (header, ["-" * each for each in widths], *rows):
            wrapped = [textwrap.wrap(row[i], max(widths[i], 1), break_on_hyphens=False) for i in columns]
            for line in zip_longest(*wrapped, fillvalue=""):
                cells = [
                    part.rjust(widths[i]) if rule[i].endswith(":") else part.ljust(widths[i])
                    for i, part in zip(columns, line, strict=True)
                ]
                text.append("  ".join(cells).rstrip())
        text.append("")
    return text[:-1]


def _cells(line: str) -> list[str]:
    cells = re.split(r"(?<!\\)\|", line.strip())[1:-1]
    return [cell.strip().replace("\\|", "|").replace("**", "") for cell in cells]


def _parts(widths: list[int], width: int) -> list[list[int]]:
    """Columns by the parts of a table that fit side by side; each part begins with the first column."""
    parts, used = [[0]], widths[0]
    for column in range(1, len(widths)):
        if used + 2 + widths[column] > width and len(parts[-1]) > 1:
            parts.append([0])
            used = widths[0]
        parts[-1].append(column)
        used += 2 + widths[column]
    return parts
