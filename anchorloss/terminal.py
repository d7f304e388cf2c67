"""Output on a terminal: streams that never fail, texts in one line, tables as plain text."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Any, TextIO, cast


class SafeStream:
    """A text stream that never raises: what cannot be written is dropped, and `failure` keeps the first reason."""

    def __init__(self, stream: TextIO | None) -> None:
        # Python has no stream where the descriptor was closed from the start.
        self._stream = stream if stream is not None else cast(TextIO, Path(os.devnull).open("w"))  # noqa: SIM115
        self.failure: OSError | None = None
        if hasattr(self._stream, "reconfigure"):
            with suppress(OSError):  # it writes what is in the buffer first
                self._stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        self._attempt(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def _attempt(self, action: Callable[..., Any], *arguments: str) -> None:
        try:
            if self.failure is None:
                action(*arguments)
        except OSError as error:
            self.failure = error
            # Python writes what is left in the buffer when it exits.
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def safe_output() -> Iterator[SafeStream]:
    """Make stdout and stderr `SafeStream`s, so that a command outlives the readers of its output. Yields stdout."""
    before = sys.stdout, sys.stderr
    stdout, stderr = (SafeStream(stream) for stream in before)
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


def printable(text: str, longest: int = 200) -> str:
    """A text from elsewhere in one line: a question mark for what cannot be printed, and without a long text's middle."""
    line = "".join(character if character.isprintable() else "?" for character in text)
    return line if len(line) <= longest else f"{line[: longest * 2 // 3]} … {line[-longest // 4 :]}"


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
    indent = "  " * text.startswith("- ")
    return textwrap.fill(
        text, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )


def _table(lines: list[str], width: int) -> list[str]:
    """The table in parts that fit the width; each part begins with the first column."""
    cells = [re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in lines]
    header, rule, *body = [
        [cell.strip().replace("\\|", "|").replace("**", "") for cell in row] for row in cells
    ]
    rows = [header, *(row + [""] * (len(header) - len(row)) for row in body)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    parts = [[0]]
    for column in range(1, len(header)):
        if sum(widths[each] + 2 for each in (*parts[-1], column)) - 2 > width and len(parts[-1]) > 1:
            parts.append([0])
        parts[-1].append(column)
    text: list[str] = []
    for part in parts:
        for row in (rows[0], ["-" * each for each in widths], *rows[1:]):
            padded = [
                row[i].rjust(widths[i]) if rule[i].endswith(":") else row[i].ljust(widths[i]) for i in part
            ]
            text.append("  ".join(padded).rstrip())
        text.append("")
    return text[:-1]
