"""Whether a live process holds a run folder's claim, judged by looking alone, without taking part."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from filelock import SoftFileLease

from anchorloss.runs.claims import FILE


def claim_is_live(folder: Path) -> bool:
    """Whether somebody has the run: a claim is there, refreshed within its lease, and its owner is not dead.

    Whether the owner lives can only be asked on its own host; from elsewhere a dead owner's claim looks live
    until its lease ends. Clocks of hosts that share the folder should agree to within the lease.
    """
    path = folder / FILE
    try:
        refreshed = path.stat().st_mtime
    except OSError:
        return False
    owner = SoftFileLease(path).owner
    if owner is None or owner.lease_duration is None or time.time() - refreshed > owner.lease_duration:
        return False
    # Signal 0 asks whether a process exists; on Windows it would be Ctrl-C.
    if os.name != "posix" or owner.hostname != socket.gethostname():
        return True
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
