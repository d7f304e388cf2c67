"""Which process trains which run, when several processes or nodes work on one sweep in a shared folder.

A claim is a lease of the `filelock` library. Its holder refreshes it. A dead owner's claim is taken over: at once on the
same host, else after `LEASE_SECONDS` without a refresh. A process that was stopped for longer than the lease can lose its
claim, so the holder calls `require` before it writes anything.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path

from filelock import LeaseSettingsMismatch, SoftFileLease, Timeout

from anchorloss.errors import ClaimLostError, UserError

LEASE_SECONDS = 30.0
FILE = "claim.lock"
# A process creates its claim and writes into it at once. Empty for this long, its creator died in between.
_EMPTY_SECONDS = 2.0
# One that finds a claim stale moves its file aside for a moment, and back if it was not.
_EXCHANGE_SECONDS = 0.1


class Claim:
    """The claim on one run folder; `acquire` and `release` may be called in any thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / FILE
        self._empty_since: float | None = None
        self._lease = SoftFileLease(self._path, lease_duration=LEASE_SECONDS, timeout=0, thread_local=False)

    def acquire(self) -> bool:
        """Try to take the claim.

        Returns:
            False if another process holds it. Ask again with the same object: it remembers since when the other's
            lease has not been refreshed.

        Raises:
            UserError: the claim's file is not a claim of this program, or the folder cannot be written to.
        """
        try:
            self._lease.acquire()
        except Timeout:
            self._give_up_empty_file()
            return False
        except LeaseSettingsMismatch:
            raise UserError(
                f"{self._path}: has another lease; remove it once its process has ended"
            ) from None
        except OSError as error:
            remedy = "move it away" if self._path.is_dir() else "use a folder that can be written to"
            raise UserError(f"{self._path}: cannot be written: {error.strerror}; {remedy}") from None
        return True

    def release(self) -> None:
        """Give the claim up, or forget it if it was lost."""
        self._lease.release()

    def require(self) -> None:
        """Make sure that the claim is still held, as its file says; filelock would notice only at its next refresh.

        Raises:
            ClaimLostError: another process has taken the run over.
        """
        for pause in (0.0, _EXCHANGE_SECONDS):
            time.sleep(pause)
            owner = self._lease.owner
            if owner is not None and owner.token == self._lease.token and self._lease.compromise is None:
                return
        raise ClaimLostError(f"{self.folder.name}: another process has taken this run over; it goes on there")

    def _give_up_empty_file(self) -> None:
        """Make an empty claim malformed, once it has been empty for a while.

        filelock takes a malformed claim over after two seconds, but waits for ever for an empty one: to it, that is a
        claim of its versions before 3.22.
        """
        with contextlib.suppress(OSError):
            if self._path.stat().st_size:
                self._empty_since = None
            elif self._empty_since is None:
                self._empty_since = time.monotonic()
            elif time.monotonic() - self._empty_since >= _EMPTY_SECONDS:
                with self._path.open("ab") as file:
                    file.write(b"\n")


def claim_is_live(folder: Path) -> bool:
    """Whether somebody has the run: a claim is there, refreshed within its lease, and its owner is not known to be dead.

    Clocks of hosts that share the folder should agree to within the lease.
    """
    path = folder / FILE
    try:
        refreshed = path.stat().st_mtime
        owner = SoftFileLease(path).owner
        if owner is None or owner.lease_duration is None or time.time() - refreshed > owner.lease_duration:
            return False
        # Signal 0 asks on its own host whether a process exists; on Windows it would be Ctrl-C.
        if os.name == "posix" and owner.hostname == socket.gethostname():
            os.kill(owner.pid, 0)
    except PermissionError:  # of another user
        return True
    except OSError:  # no claim, or no such process
        return False
    return True
