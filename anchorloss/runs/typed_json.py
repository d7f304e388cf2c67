"""Strict reading of JSON into frozen dataclasses: nothing missing without a default, unknown, mistyped or infinite."""

from __future__ import annotations

import dataclasses
import json
import math
import types
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def parse(text: bytes | str) -> Any:
    """The JSON value of `text`. Raises: ValueError, also for NaN, infinity, doubled keys, deep nesting."""
    try:
        value = json.loads(
            text, object_pairs_hook=_without_doubles, parse_constant=_refuse_constant, parse_float=_finite
        )
        # JSON can spell half a surrogate pair, which no file or terminal takes.
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def build(kind: type[T], value: Any, where: str = "") -> T:
    """An instance of the dataclass `kind` from a parsed JSON object.

    Fields may be str, int, float, bool, None, dict[str, …], Any, other dataclasses and unions of these. An
    integer is taken for a float, nothing else is converted. `where` is the dotted place for messages.

    Raises: ValueError naming the place and what is wrong with it.
    """
    return _convert(kind, value, where)


def dump(instance: Any) -> str:
    """The JSON of a dataclass instance, indented. Raises: ValueError for a NaN or an infinity."""
    return json.dumps(dataclasses.asdict(instance), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


@cache
def _fields(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _convert(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    if get_origin(kind) in (Union, types.UnionType):
        options = get_args(kind)
        if value is None and types.NoneType in options:
            return None
        (kind,) = [option for option in options if option is not types.NoneType]
        return _convert(kind, value, where)
    if get_origin(kind) is dict:
        content = get_args(kind)[1]
        return {
            key: _convert(content, item, _join(where, key))
            for key, item in _expect(dict, value, where).items()
        }
    if get_origin(kind) is list:
        (content,) = get_args(kind)
        return [_convert(content, item, where) for item in _expect(list, value, where)]
    if dataclasses.is_dataclass(kind):
        return _convert_object(kind, _expect(dict, value, where), where)
    if kind is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{where} is too large a number") from None
    return _expect(kind, value, where)


def _convert_object(kind: Any, value: dict[str, Any], where: str) -> Any:
    fields = _fields(kind)
    optional = {field.name for field in dataclasses.fields(kind) if field.default is not dataclasses.MISSING}
    for key in fields:
        if key not in value and key not in optional:
            raise ValueError(f"{_join(where, key)} is missing")
    for key in value:
        if key not in fields:
            raise ValueError(f"{_join(where, key)!a:.80} is not a key of this format")
    return kind(**{key: _convert(fields[key], item, _join(where, key)) for key, item in value.items()})


def _expect(kind: type, value: Any, where: str) -> Any:
    # By exact type, because bool is a subclass of int.
    if type(value) is not kind:
        place = where or "the whole file"
        raise ValueError(f"{place} is {value!a:.60}, not {_JSON_NAMES.get(kind, kind.__name__)}")
    return value


_JSON_NAMES = {
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
}


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a key is there twice")
    return result


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text:.40} is too large a number")
    return value
