"""Where TLS transports' read buffers come from.

Owns one setting of the C library's allocator. uvloop and aiofastnet allocate 256 KiB for every read and give most of it
back at once; above glibc's threshold of 128 KiB each of them is a mapping of its own, made, faulted in and unmapped
again. That is two thirds of what a small request over TLS costs (measured in `bench/http.py`).
"""

from __future__ import annotations

import ctypes
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt(3)
_LARGEST_KEPT = 1024 * 1024
_SLACK = 4 * 1024 * 1024  # bytes at the heap's end that are not given back


@cache
def keep_read_buffers() -> bool:
    """Let this process reuse buffers up to 1 MiB instead of mapping each; False where the C library cannot.

    Called by whoever opens TLS connections; the first call counts.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT) and mallopt(_TRIM_THRESHOLD, _SLACK))
