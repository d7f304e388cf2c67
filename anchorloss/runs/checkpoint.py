"""Checkpoints of an unfinished run: `checkpoint.pt`, the newest, and `checkpoint.previous.pt`, the one before it.

A file is one JSON line (format, run hash, SHA-256 of the run hash and what follows) and then torch's own archive, which
alone does not notice a changed bit. It is read with `weights_only=True`.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from anchorloss.errors import UserError
from anchorloss.runs.files import read_file, written_beside

NEWEST, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
FORMAT = 1


def save(folder: Path, run_hash: str, state: dict[str, Any]) -> None:
    """Write `state` (tensors and plain data) as the newest checkpoint of the run.

    Raises:
        RunError: it cannot be written. Both earlier checkpoints are intact then.
    """
    archive = io.BytesIO()
    torch.save(state, archive)
    body = archive.getvalue()
    header = {"format": FORMAT, "hash": run_hash, "sha256": _digest(run_hash, body)}
    with written_beside(folder / NEWEST, json.dumps(header).encode() + b"\n" + body) as temporary:
        if (folder / NEWEST).exists():
            (folder / NEWEST).replace(folder / PREVIOUS)
        temporary.replace(folder / NEWEST)


def load(folder: Path, run_hash: str) -> dict[str, Any] | None:
    """The state in the newest whole checkpoint of the run, None if there is none.

    A damaged one is passed over, with a line on stderr.

    Raises:
        UserError: a checkpoint is of another run or format, or cannot be read; a later `save` would overwrite it.
    """
    for path in (folder / NEWEST, folder / PREVIOUS):
        content = read_file(path)
        if content is None:
            continue
        try:
            return _state(path, content, run_hash)
        except ValueError as damage:
            print(f"{path}: {damage}; going on from the one before it, or from the start", file=sys.stderr)
    return None


def _digest(run_hash: str, body: bytes) -> str:
    return hashlib.sha256(run_hash.encode() + b"\n" + body).hexdigest()


def _state(path: Path, content: bytes, run_hash: str) -> dict[str, Any]:
    """The state in a checkpoint's file. Raises: ValueError if it is damaged; UserError as `load`."""
    line, _, body = content.partition(b"\n")
    try:
        header = json.loads(line)
        found, of_run, checksum = header["format"], str(header["hash"]), header["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("is not a checkpoint") from None
    if found != FORMAT:
        raise UserError(
            f"{path}: has format {found!a:.20}, which this version does not read; finish the run with the version that "
            "began it, or move its checkpoints away to start it anew"
        )
    if not of_run.isascii() or _digest(of_run, body) != checksum:
        raise ValueError("is damaged (checksum)")
    if of_run != run_hash:
        raise UserError(f"{path}: is of another run ({of_run:.20}); move it away to start this run anew")
    try:
        with warnings.catch_warnings(), zipfile.ZipFile(io.BytesIO(body)) as archive:
            warnings.simplefilter("ignore")  # about pickles that torch did not write; they are refused anyway
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("compressed")  # could unfold to any size
            state = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here, and a hostile file chooses among them
        reason = type(error).__name__
        raise ValueError(f"holds something other than tensors and plain data ({reason})") from None
    if not isinstance(state, dict):
        raise ValueError("holds no state")
    return state
