"""What a run reports its progress to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from anchorloss.runs.folder import Record


class Tracker:
    """Receives the progress of one run. Entered when training starts; left by an exception if it was interrupted.

    This one tracks nothing.
    """

    def __enter__(self) -> Self:
        """Training starts or resumes."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Training has ended; `finish` follows unless an exception ended it."""

    def log(self, row: Mapping[str, Any]) -> None:
        """One epoch's row of `history.csv`."""

    def finish(self, record: Record, folder: Path) -> None:
        """The run has its record, and its other files in `folder`."""
