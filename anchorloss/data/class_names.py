"""The names of classes, for what is made from records alone."""

from __future__ import annotations

from collections.abc import Sequence

from anchorloss.config.settings import DATA_SETS


def class_names(data_set: str, recorded: Sequence[str] | None, count: int) -> list[str]:
    """Name the first `count` classes of a data set: as its record names them, as CIFAR does, or by their number."""
    known = [name.replace("_", " ") for name in DATA_SETS.get(data_set, {}).get("class_names", [])]
    names = list(recorded or known)
    return [*names, *(f"class {index}" for index in range(len(names), count))][:count]
