"""The measured numbers as rows of one table, and the file they are kept in."""

from __future__ import annotations

import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from anchorloss.errors import UserError
from anchorloss.runs.reading import read_file


@dataclass(frozen=True)
class Row:
    """One quantity of one thing measured: the median of `samples`, the lowest and the highest of them.

    `section` is provenance, ceiling, work, ladder, operators, concurrent or growth. A provenance row has its
    text in `variant`.
    """

    section: str
    quantity: str
    variant: str = ""
    model: str = ""
    precision: str = ""
    batch_size: int = 0
    runs: int = 0
    threads: int = 0
    unit: str = ""
    median: float = 0.0
    low: float = 0.0
    high: float = 0.0
    samples: int = 0

    @classmethod
    def of(cls, section: str, quantity: str, samples: Sequence[float], **more: Any) -> Row:
        """The row of these samples; `more` are further fields."""
        middle, low, high = statistics.median(samples), min(samples), max(samples)
        return cls(section, quantity, **more, median=middle, low=low, high=high, samples=len(samples))


def to_csv(rows: Sequence[Row]) -> str:
    """One line a row; numbers to six digits."""
    import pandas as pd  # not above: a measured process that loads it uses more memory

    return pd.DataFrame(rows).to_csv(index=False, float_format="%.6g", na_rep="nan", lineterminator="\n")


def read_csv(path: Path) -> list[Row]:
    """The rows of a file that `to_csv` wrote.

    Raises:
        UserError: If it is no such file.
    """
    import pandas as pd

    kinds = {field.name: str(field.type) for field in fields(Row)}
    try:
        content = io.BytesIO(read_file(path) or b"")
        lines = pd.read_csv(
            content,
            usecols=list(kinds),
            dtype=kinds,
            keep_default_na=False,
            na_values={name: ["nan"] for name, kind in kinds.items() if kind == "float"},
        )
        rows = [Row(*line) for line in lines[list(kinds)].itertuples(index=False)]
        if not any(row.section == "provenance" and row.quantity == "device" for row in rows):
            raise ValueError
        return rows
    except (KeyError, ValueError, TypeError, OverflowError):
        raise UserError(f"{path}: no measurement of scripts/bench.py; name a file of results/bench") from None
