"""How far a run has come: what its checkpoints hold beside the trainer's state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from anchorloss.runs.contents import HISTORY_COLUMNS


def now() -> str:
    """The time as records write it: ISO 8601, UTC, in whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class RunState:
    """How far a run has come.

    `epoch` counts the epochs that are done; `history` has a row for each; `seconds` is the training time of all earlier
    segments. A segment is what one process trained between two resumes; `segments` describes those that differ, as
    `provenance.segment` does.
    """

    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    resumed: int = 0
    started: str = field(default_factory=now)
    segments: list[str] = field(default_factory=list)

    def to_checkpoint(self, seconds: float) -> dict[str, Any]:
        """The state as plain data, with the training time so far."""
        return {**vars(self), "seconds": seconds}

    @staticmethod
    def from_checkpoint(content: Mapping[str, Any], epochs: int) -> RunState:
        """The state of a run of `epochs` epochs that is resumed once more.

        Raises:
            ValueError: a value is missing, or is not one that such a run can have.
        """
        found = dict(content)
        # Until November 2026 segments had another name, and the earliest checkpoints have neither.
        segments = found.pop("stretches", [])
        found.setdefault("segments", segments)
        for key, is_valid in _CHECKS.items():
            if key not in found or not is_valid(found[key]):
                raise ValueError(f"{key} is {found.get(key)!a:.60}")
        state = RunState(**{key: found[key] for key in _CHECKS})
        if state.epoch >= epochs:
            raise ValueError(f"epoch is {state.epoch} of {epochs}")
        if [row["epoch"] for row in state.history] != list(range(1, state.epoch + 1)):
            raise ValueError(f"the history has {len(state.history)} rows after {state.epoch} epochs")
        state.resumed += 1
        return state


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, dict)
        and all(column in row for column in HISTORY_COLUMNS)
        and all(isinstance(key, str) and (value is None or _is_finite(value)) for key, value in row.items())
    )


def _is_time(value: Any) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


_CHECKS = {
    "epoch": _is_count,
    "history": lambda value: isinstance(value, list) and all(map(_is_row, value)),
    "seconds": lambda value: _is_finite(value) and value >= 0,
    "resumed": _is_count,
    "started": _is_time,
    "segments": lambda value: isinstance(value, list) and all(isinstance(text, str) for text in value),
}
