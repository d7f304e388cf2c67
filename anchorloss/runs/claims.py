"""Which run is whose, when several processes or nodes work on one sweep in a shared folder.

A claim is a lease of the `filelock` library: its holder refreshes it, a dead owner's is taken over (at once on the same
host, else after `LEASE_SECONDS` without a refresh), and the holder learns when it has lost it. A lease can be lost by a
process that was stopped for longer than that, so whoever holds one asks `is_lost` before writing anything.
"""

from __future__ import annotations

from pathlib import Path

from filelock import SoftFileLease, Timeout

from anchorloss.errors import ClaimLostError

LEASE_SECONDS = 30.0
FILE = "claim.lock"


class Claim:
    """The claim on one run folder; `acquire` and `release` in any thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lease = SoftFileLease(
            folder / FILE, lease_duration=LEASE_SECONDS, timeout=0, thread_local=False
        )

    def acquire(self) -> bool:
        """Try to take the claim; False if somebody else holds it. Ask again with the same object: it remembers since
        when the other's lease has not been refreshed."""
        try:
            self._lease.acquire()
        except Timeout:
            return False
        return True

    def release(self) -> None:
        """Give the claim up, or forget it if it was lost."""
        self._lease.release()

    @property
    def is_lost(self) -> bool:
        """Whether another process has taken the run over."""
        return self._lease.compromise is not None

    def require(self) -> None:
        """Raises: ClaimLostError if the claim was lost."""
        if self.is_lost:
            raise ClaimLostError(
                f"{self.folder.name}: another process has taken this run over; it goes on there"
            )
