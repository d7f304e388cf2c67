"""What is refused in a YAML file before it is built: aliases, which a small file can multiply into more than memory."""

from __future__ import annotations

import yaml

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_DEPTH = 50


def refuse_aliases(text: bytes) -> None:
    """Look through the events of a YAML text without building anything.

    Raises:
        ValueError: if it has an alias or is nested deeply.
        yaml.YAMLError: if it is not YAML.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("has a YAML alias; write the value out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deeply")
