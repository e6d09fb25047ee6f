"""Events end: each lives as long as --event-ttl says from when it was last written.

Owns the sweep. Called by `cluster`, as a task beside the API server. What was written before this server started counts
from its start. Source: kube-apiserver gives events a lease in etcd (registry/core/event/storage).
"""

from __future__ import annotations

import asyncio
from collections import deque

from steersman.api.errors import ApiError
from steersman.api.kind import Kind
from steersman.apiserver.storage import Storage
from steersman.lib.clock import Clock

_SWEEPS = 12  # in the life of an event, which lasts that much longer at most
_BATCH = 500  # deletions on their way at once


async def expire(storage: Storage, kind: Kind, clock: Clock, seconds: float) -> None:
    """Remove objects of a kind that nobody has written for so long; forever. 0 seconds keep them."""
    marks: deque[tuple[float, int]] = deque()  # moments, and the store's revision then
    while seconds > 0:
        marks.append((clock.monotonic(), storage.revision))
        await clock.sleep(seconds / _SWEEPS)
        border = 0
        while marks and marks[0][0] <= clock.monotonic() - seconds:
            border = marks.popleft()[1]
        if border:
            await _remove(storage, kind, border)


async def _remove(storage: Storage, kind: Kind, border: int) -> None:
    """Remove what was last written at a revision up to `border`."""
    _, items = storage.cache(kind).slice(storage.prefix(kind))
    old = [item for item in items if item.revision <= border]
    for at in range(0, len(old), _BATCH):
        work = (storage.remove(kind, item) for item in old[at : at + _BATCH])
        found = await asyncio.gather(*work, return_exceptions=True)
        if any(isinstance(each, ApiError) for each in found):
            return  # the store does not take writes: the next sweep tries again
