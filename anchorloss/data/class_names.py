"""The names of classes, for a report that is made from records alone."""

from __future__ import annotations

from anchorloss.config.settings import DATA_SETS
from anchorloss.runs.record import Data


def class_name(data: Data | None, index: int) -> str:
    """Name a class of a record's data set: as the record names it, as CIFAR does, or by its number."""
    names: list[str] = []
    if data is not None:
        known = DATA_SETS.get(data.name, {}).get("class_names", [])
        names = data.class_names or [name.replace("_", " ") for name in known]
    return names[index] if index < len(names) else f"class {index}"
