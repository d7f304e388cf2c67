"""Checkpoints: written whole or not at all, verified before the previous one is given up, loaded safely.

A file is one JSON line (format, run hash, SHA-256 of the run hash and what follows) and then torch's own archive,
read with `weights_only=True`. `checkpoint.pt` is the newest, `checkpoint.previous.pt` the one before it.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from anchorloss.errors import RunError, UserError
from anchorloss.runs.files import write_atomically
from anchorloss.runs.reading import read_file

NEWEST = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"
_CANDIDATE = "checkpoint.new.pt"
FORMAT = 1


class Damaged(Exception):
    """The file is not a whole checkpoint of this format."""


def save(folder: Path, run_hash: str, state: dict[str, Any]) -> None:
    """Write `state` (tensors and plain data) as the newest checkpoint of the run.

    Raises:
        RunError: as `put`.
    """
    archive = io.BytesIO()
    torch.save(state, archive)
    body = archive.getvalue()
    header = {"format": FORMAT, "hash": run_hash, "sha256": _digest(run_hash, body)}
    put(folder, json.dumps(header).encode() + b"\n" + body)


def put(folder: Path, content: bytes) -> None:
    """Write a checkpoint's whole content, as `newest` gives it, as the newest of the run.

    Raises:
        RunError: it cannot be written or does not read back. Both earlier checkpoints are intact then.
    """
    candidate = folder / _CANDIDATE
    write_atomically(candidate, content)
    try:
        _verify(read_file(candidate) or b"")
    except Damaged as damage:
        candidate.unlink(missing_ok=True)
        raise RunError(
            f"{candidate}: did not read back as written ({damage}); is the disk failing?"
        ) from None
    if (folder / NEWEST).exists():
        (folder / NEWEST).replace(folder / PREVIOUS)
    candidate.replace(folder / NEWEST)


def load(folder: Path, run_hash: str) -> dict[str, Any] | None:
    """The state in the `newest` checkpoint of the run, None if there is none.

    Raises:
        UserError: as `newest`.
    """
    found = newest(folder, run_hash)
    return found and found[1]


def newest(folder: Path, run_hash: str) -> tuple[bytes, dict[str, Any]] | None:
    """The newest whole checkpoint of the run: its file's content, and the state in it; None if there is none.

    A damaged one is passed over, with a line on stderr.

    Raises:
        UserError: a checkpoint belongs to another run, or cannot be read; a later `save` would overwrite it.
    """
    for name in (NEWEST, PREVIOUS):
        path = folder / name
        content = read_file(path)
        if content is None:
            continue
        try:
            header, body = _verify(content)
            if header["hash"] != run_hash:
                raise UserError(
                    f"{path}: is of another run ({header['hash']}); move it away to start this run anew"
                )
            return content, _unpack(body)
        except Damaged as damage:
            print(f"{path}: {damage}; going on from the one before it, or from the start", file=sys.stderr)
    return None


def remove(folder: Path) -> None:
    """Delete the run's checkpoints, once its record is written."""
    for name in (NEWEST, PREVIOUS, _CANDIDATE):
        (folder / name).unlink(missing_ok=True)


def _digest(run_hash: str, body: bytes) -> str:
    return hashlib.sha256(run_hash.encode() + b"\n" + body).hexdigest()


def _verify(content: bytes) -> tuple[dict[str, Any], bytes]:
    """A checkpoint's header and body. Raises: Damaged."""
    line, _, body = content.partition(b"\n")
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        raise Damaged("is not a checkpoint") from None
    match header:
        case {"format": number, "hash": str(run_hash), "sha256": checksum} if number == FORMAT:
            if _digest(run_hash, body) != checksum:
                raise Damaged("is damaged (checksum)")
            return header, body
    raise Damaged("is not a checkpoint of this format")


def _unpack(body: bytes) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles that torch did not write; they are refused anyway
            state = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here, and a hostile file chooses among them
        raise Damaged(f"holds something other than tensors and plain data ({type(error).__name__})") from None
    if not isinstance(state, dict):
        raise Damaged("holds no state")
    return state
