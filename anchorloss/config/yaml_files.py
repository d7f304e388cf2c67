"""Config files as they lie on the disk: what must not reach a YAML loader, since it would fill the memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from anchorloss.errors import UserError

LARGEST_FILE = 1 << 20
# In C where PyYAML was built with it: several times as fast.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEEPEST = 50


def check_yaml(text: str) -> None:
    """Look through the events of a YAML text before it is built: a few aliases multiply into more than memory.

    Raises:
        ValueError: it has an alias, is nested deeply, or holds no mapping.
        yaml.YAMLError: it is not YAML.
    """
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("has a YAML alias; write the value out")
        is_empty = isinstance(event, yaml.ScalarEvent) and event.value in ("", "null")
        is_mapping = isinstance(event, yaml.MappingStartEvent) or is_empty
        if depth == 0 and isinstance(event, yaml.NodeEvent) and not is_mapping:
            raise ValueError("holds no mapping")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError("nested too deeply")


def check_config_files(folders: Sequence[Path]) -> None:
    """Check every YAML file below the folders.

    Raises:
        UserError: names a file that is not regular, larger than 1 MB, not UTF-8, or refused by `check_yaml`.
    """
    from omegaconf import OmegaConf  # which analysis does without

    for path in config_files(folders):
        try:
            if not path.is_file() or path.stat().st_size > LARGEST_FILE:
                raise ValueError(f"must be a file of at most {LARGEST_FILE:,} bytes")
            text = path.read_text(encoding="utf-8-sig")
            check_yaml(text)
            OmegaConf.create(text)  # refuses tags and doubled keys
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}; make it readable") from None
        except (yaml.YAMLError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{path}: not a config ({reason}); write `key: value` lines in YAML") from None


def config_files(folders: Sequence[Path]) -> Iterator[Path]:
    """The YAML files below the folders; none in hidden folders."""
    for folder in folders:
        for path in sorted(folder.rglob("*.yaml")):
            if not any(part.startswith(".") for part in path.relative_to(folder).parts):
                yield path
