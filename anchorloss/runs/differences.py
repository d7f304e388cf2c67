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
    return not describe_difference(*results)


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"optim": {"lr": 0.1}}` as `{"optim.lr": 0.1}`; lists and empty mappings stay values."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def describe_difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The dotted keys in which two nested settings differ, each with its two values as JSON (or `absent`).

    As JSON, because Python finds 1, 1.0 and True equal.
    """
    first, second = ({key: json.dumps(value) for key, value in flatten(each).items()} for each in (a, b))
    pairs = {key: (first.get(key, "absent"), second.get(key, "absent")) for key in sorted({*first, *second})}
    return {key: values for key, values in pairs.items() if values[0] != values[1]}


def differences(
    runs: Sequence[tuple[str, dict[str, Any]]],
) -> Iterator[tuple[int, int, dict[str, tuple[str, str]]]]:
    """Which of these runs, (loss, settings), differ in more than the seed, and in what: two places and the difference.

    Each is held against the first of all and the first of its loss; `loss.*` counts between runs of one loss alone.
    """
    of_loss: dict[str, int] = {}
    for place, (loss, settings) in enumerate(runs):
        for first in dict.fromkeys((0, of_loss.setdefault(loss, place))):
            other_loss, others = runs[first]
            difference = {
                key: values
                for key, values in describe_difference(others, settings).items()
                if key != "seed" and (loss == other_loss or not key.startswith("loss."))
            }
            if difference:
                yield first, place, difference
