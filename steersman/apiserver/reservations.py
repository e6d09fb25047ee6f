"""What Services hold, agreed on by several API servers on one store.

Owns one key of the store for each address and node port in use: whoever makes it first has it. Called by `ipalloc.py`,
and only where the store is shared; a server alone knows by itself what it has given out. A reservation whose Service
was never written (its server died in between) is taken back when a server starts.
Source: kube-apiserver keeps the same in /registry/ranges.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable

from steersman.lib.clock import Clock
from steersman.lib.tasks import Tasks
from steersman.store.interface import KeyExists, RevisionConflict, Store, StoreUnavailable

log = logging.getLogger(__name__)

_PREFIX = "/core/serviceranges/"
_GRACE = 60.0  # seconds that a write may take after its reservation


class Reservations:
    """Keys of a shared store, one for each claim."""

    def __init__(self, store: Store, clock: Clock, tasks: Tasks) -> None:
        self._store = store
        self._clock = clock
        self._tasks = tasks

    async def take(self, claims: Iterable[str | int], uid: str) -> list[str | int]:
        """Reserve all for the Service `uid`, or none: returns those that are another's. Raises StoreUnavailable."""
        taken: list[str | int] = []
        lost: list[str | int] = []
        value = f"{uid} {self._clock.now():.0f}".encode()
        for claim in claims:
            try:
                await self._store.create(f"{_PREFIX}{claim}", value)
            except KeyExists:
                entry = await self._store.get(f"{_PREFIX}{claim}")
                if entry is None or _uid(entry.value) != uid:
                    lost.append(claim)
            else:
                taken.append(claim)
        if lost:
            await self._give_back(taken, uid)
        return lost

    def release(self, claims: Collection[str | int], uid: str) -> None:
        """Soon make free what the Service `uid` no longer holds; another's is left alone."""
        if claims:
            self._tasks.spawn(self._give_back(list(claims), uid), "release of service addresses")

    async def _give_back(self, claims: Iterable[str | int], uid: str) -> None:
        for claim in claims:
            await self._drop(f"{_PREFIX}{claim}", uid)

    async def _drop(self, key: str, uid: str) -> None:
        try:
            entry = await self._store.get(key)
            if entry is not None and _uid(entry.value) == uid:
                await self._store.delete(key, entry.revision)
        except RevisionConflict:
            return  # somebody else was as quick
        except StoreUnavailable as error:
            log.warning("cannot release %s: %s", key.removeprefix(_PREFIX), error)

    async def settle(self, held: dict[str, Collection[str | int]]) -> None:
        """At a start: reserve what Services hold (uid to claims), take back what nobody came to hold."""
        found = {entry.key: entry for entry in (await self._store.list(_PREFIX)).entries}
        for uid, claims in held.items():
            await self.take((claim for claim in claims if f"{_PREFIX}{claim}" not in found), uid)
        for key, entry in found.items():
            uid, _, since = entry.value.decode(errors="replace").partition(" ")
            old = not since.isdecimal() or int(since) < self._clock.now() - _GRACE
            if old and key.removeprefix(_PREFIX) not in map(str, held.get(uid, ())):
                await self._drop(key, uid)


def _uid(value: bytes) -> str:
    return value.decode(errors="replace").partition(" ")[0]
