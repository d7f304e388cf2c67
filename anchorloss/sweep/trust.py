"""Whether the functions that a run folder names may be called here: a run folder of somebody else's is code."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from anchorloss.config.own_code import import_function, source_files
from anchorloss.errors import UserError
from anchorloss.runs.folder import read_record
from anchorloss.runs.provenance import is_tracked

_TRUSTED = ("anchorloss", "models", "torch.nn")


def require_trusted(folders: Iterable[Path]) -> None:
    """Make sure that runs call only what is defined in `anchorloss`, `models` or `torch.nn`, or tracked here by git.

    Raises:
        UserError: names the run and its function.
    """
    for folder in folders:
        record = read_record(folder)
        parts = {} if record is None else record.identity
        for key in ("loss", "model", "data"):
            function = parts[key].get("function") if key in parts else None
            if function is not None and not _is_trusted(function):
                raise UserError(
                    f"{folder}: {key}.function={function} is no code of this checkout; read what it does, and give "
                    "--trust-code to run it"
                )


def _is_trusted(path: str) -> bool:
    """By its files before the import, and then by where the object is defined: `torch.os.system` is not torch's."""
    own = source_files((path,))
    if not all(is_tracked(file) for file in own):
        return False
    if not own and not path.startswith(("anchorloss.", "models.", "torch.")):
        return False
    module = getattr(import_function("function", path), "__module__", None) or ""
    if any(module == name or module.startswith(f"{name}.") for name in _TRUSTED):
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and is_tracked(Path(file))
