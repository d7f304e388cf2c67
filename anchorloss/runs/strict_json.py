"""JSON of a run folder, read strictly: plain data of a sane depth and size, and nothing said twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from anchorloss.errors import UserError

# Objects inside objects; a record needs three.
_MAX_DEPTH = 12
# No loss in float32 comes near it; larger numbers overflow in what is computed from them, as sums and plots.
LARGEST_MEASURED = 1e60


def parse_json(text: bytes | str) -> Any:
    """The JSON value of `text`.

    Raises:
        ValueError: if it is not JSON, has NaN, an infinity or a key twice, or is nested deeply.
    """
    try:
        text = text if isinstance(text, str) else text.decode()
        value = json.loads(text, object_pairs_hook=_without_doubles, parse_constant=_refuse_constant)
        check_plain(value)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def check_plain(value: Any, depth: int = 0) -> None:
    """Check nested data that came from JSON.

    Raises:
        ValueError: it is nested deeply, or has a text of several lines or a number beyond `LARGEST_MEASURED`.
    """
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    if isinstance(value, dict):
        for key, item in value.items():
            check_plain(key, depth)
            check_plain(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            check_plain(item, depth + 1)
    elif isinstance(value, str):
        require(value.isprintable(), "a text", value, "must be printable characters in one line")
    elif isinstance(value, int | float):
        require(abs(value) <= LARGEST_MEASURED, "a number", value, "too large")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a key is there twice")
    return result


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def require(ok: bool, key: str, value: Any, problem: str) -> None:
    """Raise ValueError with the key, its value and the problem unless `ok`."""
    if not ok:
        raise ValueError(f"{key} is {value!a:.80}: {problem}")


def damaged(path: Path | str, problem: object) -> UserError:
    """The one line for a file whose content cannot be trusted."""
    reason = " ".join(ascii(str(problem))[1:-1].split())[:200]
    return UserError(f"{path}: {reason}; damaged or foreign: restore it from a copy, or move its folder away")
