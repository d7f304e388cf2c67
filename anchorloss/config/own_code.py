"""Code that configs name by its import path: the function there, and the hash of its source.

If the function is in `anchorloss` or in torch, path and arguments say which it is. Otherwise the same path may name
another formula tomorrow, so the hash of the source enters the run's identity. It is found without importing anything.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import logging
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib import metadata
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from anchorloss.errors import UserError

# Their versions are in every record, and identities from before there were source hashes name functions in them.
_KNOWN = ("anchorloss", "torch")
_LONGEST = 300
_STANDARD_LIBRARY = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))


def import_function(key: str, path: str) -> Callable[..., Any]:
    """Import the function that the config key `key` (`loss.function`) names by `path`.

    Raises:
        UserError: nothing callable is found there, or its module does not import.
    """
    if not _is_import_path(path):
        raise UserError(f"{key}={path}: not an import path; write package.module.function")
    from hydra.utils import get_method

    # It logs what it raises.
    logging.getLogger("hydra.utils").disabled = True
    try:
        return get_method(path)
    except (Exception, SystemExit) as error:  # whatever the module raises while it is imported
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = f"{type(cause).__name__}: {' '.join(str(cause).split())}"
    raise UserError(f"{key}={path}: cannot be imported ({reason}); write package.module.function")


def check_arguments(
    where: str, path: str, function: Callable[..., Any], arguments: Mapping[str, Any], own: tuple[str, ...]
) -> None:
    """Check that `function` takes the keyword arguments that the config has at `where`.

    `own` are the parameters that the caller fills in, or that must keep their defaults; `path` is for the message.

    Raises:
        UserError: an argument is unknown or one of `own`, or the function's signature cannot be read.
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        key = f"{where.partition('.')[0]}.function"
        raise UserError(f"{key}={path}: has no signature; name a function written in Python") from None
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for key, value in arguments.items():
        problem = None
        if key in own:
            problem = "is not for a config to set; leave it out"
        elif key not in parameters and not takes_any:
            known = ", ".join(name for name in parameters if name not in own) or "no arguments"
            problem = f"{path} takes {known}"
        elif not takes_any and isinstance(parameters[key].default, bool) and not isinstance(value, bool):
            problem = "must be true or false"
        if problem:
            raise UserError(f"{where}.{key}={value}: {problem}")


def source_hash(function: str) -> str | None:
    """Hash the source of the function at an import path, with the modules of one's own that it imports.

    Returns:
        16 hex digits; None for a function in `anchorloss` or torch, or one that is not found. For a function in another
        installed package, the hash of the package's name and version.
    """
    top = function.partition(".")[0]
    spec = _module_of(function)
    if spec is None:
        return None
    digest = hashlib.sha256()
    if _is_installed(spec) and (version := _version(top)) is not None:
        digest.update(f"{top} {version}".encode())
    else:
        for name, path in sorted(_modules(spec).items()):
            # Git may check the same source out with other line endings.
            digest.update(f"{name}\0".encode() + path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()[:16]


def source_files(functions: Iterable[str]) -> tuple[Path, ...]:
    """List the files that `source_hash` reads for these functions; none for those in installed packages."""
    specs = [_module_of(function) for function in functions]
    own = [_modules(spec) for spec in specs if spec is not None and not _is_installed(spec)]
    return tuple(sorted({path for modules in own for path in modules.values()}))


def _is_import_path(path: str) -> bool:
    parts = path.split(".")
    return len(path) <= _LONGEST and len(parts) > 1 and all(part.isidentifier() for part in parts)


def _module_of(function: str) -> ModuleSpec | None:
    """The longest part of the path that is a module: `package.module` of `package.module.Class.method`."""
    parts = function.split(".")
    if parts[0] not in _KNOWN and _is_import_path(function):
        for end in range(len(parts) - 1, 0, -1):
            if (spec := _find(".".join(parts[:end]))) is not None:
                return spec if spec.has_location else None
    return None


def _find(name: str) -> ModuleSpec | None:
    """The module's specification. `importlib.util.find_spec` would import its parents."""
    parent, _, last = name.rpartition(".")
    package = _find(parent) if parent else None
    locations = None if package is None else package.submodule_search_locations
    if not last or ((parent or "." in name) and locations is None):
        return None
    specs = (finder.find_spec(name, locations) for finder in sys.meta_path)
    return next((spec for spec in specs if spec is not None), None)


def _modules(start: ModuleSpec) -> dict[str, Path]:
    """The module and what it imports, directly or not, as far as it is neither installed nor part of this package."""
    found: dict[str, Path] = {}
    waiting = [start]
    while waiting:
        spec = waiting.pop()
        if spec.name in found or spec.origin is None or not Path(spec.origin).is_file():
            continue
        found[spec.name] = Path(spec.origin).resolve()
        for name in _imports(found[spec.name], spec):
            imported = None if name.partition(".")[0] in _KNOWN else _find(name)
            if imported is not None and not _is_installed(imported):
                waiting.append(imported)
    return found


def _imports(path: Path, spec: ModuleSpec) -> Iterator[str]:
    """The names of the modules that a file may import: of `from a import b` both `a` and `a.b`."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError):  # not Python; importing it says what is wrong
        return
    package = spec.name if spec.submodule_search_locations is not None else spec.parent or ""
    parents = package.split(".")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = parents[: len(parents) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


@cache
def _version(top: str) -> str | None:
    distributions = metadata.packages_distributions().get(top)
    return metadata.version(distributions[0]) if distributions else None


def _is_installed(spec: ModuleSpec) -> bool:
    """Whether a module belongs to Python or to an installed package. Namespace packages have no source of their own."""
    if not spec.has_location or spec.origin is None:
        return True
    path = Path(spec.origin).resolve()
    is_standard = any(path.is_relative_to(folder) for folder in _STANDARD_LIBRARY)
    return is_standard or not {"site-packages", "dist-packages"}.isdisjoint(path.parts)
