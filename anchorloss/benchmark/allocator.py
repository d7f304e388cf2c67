"""Keeps the memory that tensors free for the tensors that come next.

glibc may hand a large freed block back to the kernel, and the next tensor of that size is then cleared page by page. For
measurements of single operators; a training step gains nothing by it. No number changes by it.
"""

from __future__ import annotations

import ctypes
from functools import cache

# From glibc's malloc.h; other C libraries do not have them.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 << 20


@cache
def keep_freed_memory() -> bool:
    """Make this process's allocator keep what is freed; False where it is not glibc's, and nothing is changed."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    kept = mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    return bool(kept and mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD))
