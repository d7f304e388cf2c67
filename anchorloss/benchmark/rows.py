"""The measured numbers as rows of one table, and the file they are kept in."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

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


def spread(samples: Sequence[float]) -> dict[str, float | int]:
    """Median, lowest, highest and number of `samples`, as a row has them."""
    return {
        "median": statistics.median(samples),
        "low": min(samples),
        "high": max(samples),
        "samples": len(samples),
    }


def to_csv(rows: Iterable[Row]) -> str:
    """One line a row; numbers to six digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in asdict(row).items()}
        )
    return text.getvalue()


def read_csv(path: Path) -> list[Row]:
    """The rows of a file that `to_csv` wrote.

    Raises:
        UserError: If it is no such file.
    """
    kinds = {field.name: {"str": str, "int": int, "float": float}[str(field.type)] for field in fields(Row)}
    try:
        lines = csv.DictReader(io.StringIO((read_file(path) or b"").decode(), newline=""))
        rows = [Row(**{key: kind(line[key]) for key, kind in kinds.items()}) for line in lines]
        if not any(row.section == "provenance" and row.quantity == "device" for row in rows):
            raise ValueError("it names no device")
        return rows
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise UserError(
            f"{path}: no measurement of scripts/bench.py ({error}); name a file of results/bench"
        ) from None
