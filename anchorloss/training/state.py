"""How far a run has come: what its checkpoints hold beside the trainer's state."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, GetPydanticSchema, ValidationError

from anchorloss.config.validation import Written, first_problem
from anchorloss.runs.contents import HISTORY_COLUMNS

_Count = Annotated[int, Field(ge=0)]
_Time = Annotated[str, Written(lambda text: datetime.fromisoformat(text).tzinfo, "a time with its zone")]
_Number = Annotated[Any, GetPydanticSchema(lambda _, handler: handler(int | float | None))]


def now() -> str:
    """The time as records write it: ISO 8601, UTC, in whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class RunState(BaseModel):
    """How far a run has come.

    `epoch` counts the epochs that are done; `history` has a row for each; `seconds` is the training time of all earlier
    segments. A segment is what one process trained between two resumes; `segments` describes those that differ, as
    `provenance.segment` does.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    epoch: _Count = 0
    history: list[dict[str, _Number]] = []
    seconds: Annotated[float, Field(ge=0)] = 0.0
    resumed: _Count = 0
    started: _Time = Field(default_factory=now)
    # Until November 2026 segments had another name, and the earliest checkpoints have neither.
    segments: list[str] = Field(default_factory=list, validation_alias=AliasChoices("segments", "stretches"))

    def to_checkpoint(self, seconds: float) -> dict[str, Any]:
        """The state as plain data, with the training time so far."""
        return {**vars(self), "seconds": seconds}

    @staticmethod
    def from_checkpoint(content: Mapping[str, Any], epochs: int) -> RunState:
        """The state of a run of `epochs` epochs that is resumed once more.

        Raises:
            ValueError: a value is missing, or is not one that such a run can have.
        """
        if missing := RunState.model_fields.keys() - {"segments"} - content.keys():
            raise ValueError(f"{min(missing)} is missing")
        try:
            state = RunState.model_validate(content)
        except ValidationError as error:
            key, value, _ = first_problem(error)
            raise ValueError(f"{key} is {value!a:.60}") from None
        if state.epoch >= epochs:
            raise ValueError(f"epoch is {state.epoch} of {epochs}")
        if [row.get("epoch") for row in state.history] != list(range(1, state.epoch + 1)):
            raise ValueError(f"the history has {len(state.history)} rows after {state.epoch} epochs")
        if any(not row.keys() >= set(HISTORY_COLUMNS) for row in state.history):
            raise ValueError("the history lacks a column")
        state.resumed += 1
        return state
