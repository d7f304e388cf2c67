"""Code that is not part of this package: where the source of a loss, network or data set lies, and its hash.

A config names a function by its import path. If the function is in `anchorloss` or in torch, path and arguments say
which it is. Otherwise the same path may name another formula tomorrow, so the hash of the source enters the run's
identity. Nothing is imported or executed here.
"""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from importlib.machinery import ModuleSpec
from pathlib import Path

# Their versions are in every record, and identities from before there were source hashes name functions in them.
_KNOWN = ("anchorloss", "torch")
LONGEST = 300
_STANDARD_LIBRARY = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))


def source_hash(function: str) -> str | None:
    """Hash the source of the function at an import path, with the modules of one's own that it imports.

    Returns:
        16 hex digits; None for a function in `anchorloss` or torch, or one that is not found. For a function in another
        installed package, the hash of the package's name and version.
    """
    top = function.partition(".")[0]
    if top in _KNOWN:
        return None
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
    found: set[Path] = set()
    for function in functions:
        spec = None if function.partition(".")[0] in _KNOWN else _module_of(function)
        if spec is not None and not _is_installed(spec):
            found.update(_modules(spec).values())
    return tuple(sorted(found))


def _module_of(function: str) -> ModuleSpec | None:
    """The longest part of the path that is a module: `package.module` of `package.module.Class.method`."""
    parts = function.split(".")
    if len(function) > LONGEST or not all(part.isidentifier() for part in parts):
        return None
    for end in range(len(parts) - 1, 0, -1):
        spec = _find(".".join(parts[:end]))
        if spec is not None:
            return spec if spec.has_location else None
    return None


def _find(name: str) -> ModuleSpec | None:
    """The module's specification, found without importing its parents."""
    spec: ModuleSpec | None = None
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        locations = None if spec is None else spec.submodule_search_locations
        if not parts[end - 1] or (spec is not None and locations is None):
            return None
        qualified = ".".join(parts[:end])
        specs = (finder.find_spec(qualified, locations) for finder in sys.meta_path)
        spec = next((found for found in specs if found is not None), None)
        if spec is None:
            return None
    return spec


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
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


@cache
def _version(top: str) -> str | None:
    distributions = metadata.packages_distributions().get(top)
    return metadata.version(distributions[0]) if distributions else None


def _is_installed(spec: ModuleSpec) -> bool:
    """Whether a module belongs to Python or to an installed package. Namespace packages have no source of their own."""
    if not spec.has_location or spec.origin is None:
        return True
    path = Path(spec.origin).resolve()
    return bool({"site-packages", "dist-packages"} & set(path.parts)) or any(
        path.is_relative_to(folder) for folder in _STANDARD_LIBRARY
    )
