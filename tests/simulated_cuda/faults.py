"""The faults of faults.yaml, which a case must find when they are planted in the code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Fault:
    """`old`, which the module has once, becomes `new`; `case` must then fail."""

    name: str
    case: str
    module: str
    old: str
    new: str


FAULTS = tuple(
    Fault(name, module=module, **fault)
    for module, faults in yaml.safe_load(Path(__file__).with_name("faults.yaml").read_text()).items()
    for name, fault in faults.items()
)
