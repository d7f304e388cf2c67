"""The figures of the paper's Table 1, as transcribed; `results/published/table1.csv` is a copy."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from anchorloss.errors import UserError

PAPER_LOSSES = ("bce", "anchor_target", "anchor_bg", "anchor_both")
PUBLISHED = Path(__file__).with_name("published_table1.csv")


@dataclass(frozen=True)
class Published:
    """One row of the paper's table, in percent. The number of runs behind it is not known."""

    label: str
    top1_mean: float
    top1_std: float
    top5_mean: float
    top5_std: float

    def score(self, name: str) -> tuple[float, float]:
        """Return mean and standard deviation of `top1` or `top5`."""
        return getattr(self, f"{name}_mean"), getattr(self, f"{name}_std")


def published_for(data_label: str) -> dict[str, Published]:
    """Return the paper's Table 1 for runs on this data set; empty unless it is CIFAR-100, or the synthetic set."""
    return read_published() if data_label in ("CIFAR-100", "SYNTHETIC") else {}


def read_published(path: Path = PUBLISHED) -> dict[str, Published]:
    """Read the paper's Table 1, by loss.

    Raises:
        UserError: The file is missing or damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return {
                row["loss"]: Published(
                    row["label"],
                    *(float(row[f"{top}_{part}"]) for top in ("top1", "top5") for part in ("mean", "std")),
                )
                for row in csv.DictReader(file)
            }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: the paper's figures cannot be read ({error!a}); restore it from git"
        ) from error
