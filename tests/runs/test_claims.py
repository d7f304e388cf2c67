"""Claims that no living process holds, and files in a claim's place that are none."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from anchorloss.errors import ClaimLostError, UserError
from anchorloss.runs.claims import FILE, Claim


def acquire_within(claim: Claim, seconds: float) -> bool:
    """Ask for the claim again and again, as a sweep does."""
    end = time.monotonic() + seconds
    while not claim.acquire():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"filelock/2\npid=1", b"\xff" * 5000], ids=["empty", "line", "torn", "noise"]
)
def test_a_claim_that_was_never_written_whole_is_taken_over(tmp_path, content):
    """Its process was killed between creating the file and writing into it, or the power went."""
    (tmp_path / FILE).write_bytes(content)
    claim = Claim(tmp_path)
    assert not claim.acquire()
    assert acquire_within(claim, 60)
    assert not Claim(tmp_path).acquire()
    claim.release()


def test_a_claim_that_is_written_while_it_is_watched_is_respected(tmp_path):
    """Empty when first seen: its process was slow, not dead."""
    other = Claim(tmp_path)
    other.acquire()
    content = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(b"")
    claim = Claim(tmp_path)
    assert not claim.acquire()
    (tmp_path / FILE).write_bytes(content)
    assert not acquire_within(claim, 6)
    other.release()
    assert claim.acquire()
    claim.release()


def test_a_claim_that_another_process_has_taken_over_is_lost_at_once(tmp_path):
    """Its holder was stopped for longer than the lease, and goes on before filelock looks at the file again."""
    stopped, other = Claim(tmp_path), Claim(tmp_path)
    assert stopped.acquire()
    stopped.require()
    (tmp_path / FILE).unlink()
    with pytest.raises(ClaimLostError):
        stopped.require()
    assert other.acquire()
    with pytest.raises(ClaimLostError):
        stopped.require()
    stopped.release()
    other.require()
    assert not Claim(tmp_path).acquire()
    other.release()


def test_a_live_claim_with_another_lease_is_refused_in_one_line(tmp_path):
    holder = Claim(tmp_path)
    holder.acquire()
    path = tmp_path / FILE
    path.write_text(path.read_text().replace("duration=30.0", "duration=3600.0"))
    with pytest.raises(UserError, match=r"claim\.lock: .*another lease"):
        Claim(tmp_path).acquire()


def test_a_folder_in_a_claims_place_is_refused_in_one_line(tmp_path):
    (tmp_path / FILE).mkdir()
    with pytest.raises(UserError, match="Is a directory"):
        Claim(tmp_path).acquire()


@pytest.mark.parametrize("kind", ["pipe", "dangling link", "cyclic link", "device"])
def test_what_is_no_file_in_a_claims_place_blocks_nobody(tmp_path: Path, kind: str):
    path = tmp_path / FILE
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to({"dangling link": "nowhere", "cyclic link": FILE, "device": "/dev/zero"}[kind])
    claim = Claim(tmp_path)
    assert acquire_within(claim, 60)
    claim.release()
