"""What is checked beyond pydantic's own constraints, in YAML too, and the first problem that pydantic finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pydantic import ValidationError


_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_DEPTH = 50


class Written:
    """In `Annotated[str, Written(str.isprintable, "one line")]`: a check of a string, and what it then is."""

    choices: tuple[str, ...] = ()

    def __init__(self, check: Callable[[str], Any], what: str) -> None:
        self.check = check
        self.what = what

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema  # takes a moment that `--help` does not need

        return core_schema.no_info_after_validator_function(self._require, handler(source))

    def _require(self, text: str) -> str:
        if not self.check(text):
            raise ValueError(f"must be {self.what}{did_you_mean(text, self.choices)}")
        return text


class OneOf(Written):
    """In `Annotated[str, OneOf("step", "cosine")]`: the values that a string may have."""

    def __init__(self, *choices: str) -> None:
        super().__init__(choices.__contains__, f"one of {', '.join(choices)}")
        self.choices = choices


# Of a key that nothing reads.
UNKNOWN = "is not a key of this format"
_TEXTS = {
    "missing": "is missing",
    "extra_forbidden": UNKNOWN,
    "unexpected_keyword_argument": UNKNOWN,
    "model_type": "must be an object",
    "dict_type": "must be an object",
    "dataclass_type": "must be a group of settings",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be a string",
    "string_unicode": "must be printable characters in one line",
    "list_type": "must be a list",
    "finite_number": "must be a finite number",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must have at least {min_length} entries or characters",
    "too_long": "must have at most {max_length} entries or characters",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
}


def first_problem(error: ValidationError) -> tuple[str, Any, str]:
    """The first of pydantic's problems: the key (empty for a rule across keys), its value, and what it must be."""
    first = error.errors(include_url=False)[0]
    kind, context = first["type"], first.get("ctx", {})
    text = _TEXTS[kind].format(**context) if kind in _TEXTS else first["msg"].replace("Input should", "must")
    if kind == "too_short" and context["min_length"] == 1:
        text = "must not be empty"
    if kind == "value_error":
        text = str(context["error"])
    return ".".join(str(part) for part in first["loc"] if part != "[key]"), first["input"], text


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` for the nearest of the known names; empty if none is near."""
    near = get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def refuse_aliases(text: bytes) -> None:
    """Look through the events of a YAML text before it is built: a few aliases multiply into more than memory.

    Raises:
        ValueError: if it has an alias or is nested deeply.
        yaml.YAMLError: if it is not YAML.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("has a YAML alias; write the value out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deeply")
