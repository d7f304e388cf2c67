"""In what records and settings differ, and when two records are equal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from anchorloss.runs.record import WEIGHTS, Record


def same_result(a: Record, b: Record) -> bool:
    """Whether two records say the same thing: equal in everything but their provenance, and in who kept weights."""
    results = [a.result(), b.result()]
    if (WEIGHTS in a.files) != (WEIGHTS in b.files):
        for result in results:
            result["files"].pop(WEIGHTS, None)
    # As text, because Python finds 1, 1.0 and True equal.
    first, second = (json.dumps(result, sort_keys=True) for result in results)
    return first == second


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"optim": {"lr": 0.1}}` as `{"optim.lr": 0.1}`; lists and empty mappings stay values."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def describe_difference(a: dict[str, Any], b: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """The dotted keys in which two nested settings differ, each with its two values as JSON (or `absent`)."""
    return _different(_as_json(a), _as_json(b))


def _as_json(settings: Mapping[str, Any]) -> dict[str, str]:
    return {key: json.dumps(value) for key, value in flatten(settings).items()}


def _different(a: dict[str, str], b: dict[str, str]) -> dict[str, tuple[str, str]]:
    keys = sorted({*a, *b}) if a != b else ()
    pairs = {key: (a.get(key, "absent"), b.get(key, "absent")) for key in keys}
    return {key: values for key, values in pairs.items() if values[0] != values[1]}


def differences(
    runs: Sequence[tuple[str, dict[str, Any]]],
) -> Iterator[tuple[int, int, dict[str, tuple[str, str]]]]:
    """Which of these runs, (loss, settings), differ in more than the seed, and in what: two places and the difference.

    Each is held against the first of all and the first of its loss; `loss.*` counts between runs of one loss alone.
    """
    of_loss: dict[str, int] = {}
    flat = [(loss, _as_json(settings)) for loss, settings in runs]
    for place, (loss, settings) in enumerate(flat):
        for first in dict.fromkeys((0, of_loss.setdefault(loss, place))):
            other_loss, others = flat[first]
            difference = {
                key: values
                for key, values in _different(others, settings).items()
                if key != "seed" and (loss == other_loss or not key.startswith("loss."))
            }
            if difference:
                yield first, place, difference
