"""The endpoints of the `kubernetes` Service: which API servers there are.

Owns the leases of servers that share a store, and the Endpoints and EndpointSlice that follow from them. Made by
`cluster`. A lease lives for as long as its server writes it anew; that is measured by the reader's own clock from when
he saw it change, so that no server need trust another's time. A server alone says once where it is.
Source: kube-apiserver's pkg/controlplane/reconcilers and controller/kubernetesservice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Protocol

from steersman.api.errors import ApiError
from steersman.api.resource import ENDPOINTS, ENDPOINTSLICES
from steersman.apiserver.bootstrap import reconcile
from steersman.lib.clock import Clock
from steersman.store.interface import KeyExists, RevisionConflict, Store, StoreError, StoreUnavailable

log = logging.getLogger(__name__)

_PREFIX = "/core/masterleases/"
_LIFE = 15.0  # seconds without a write after which a lease is over
_EVERY = 10.0  # seconds between writes
_PATIENCE = 5.0  # seconds to take leave in


class Policy(Protocol):
    """Decides which addresses the endpoints have."""

    async def addresses(self, present: Sequence[str]) -> Sequence[str]:
        """What they ought to be, given what is `present`; called every ten seconds. Raises StoreError."""
        ...

    async def leave(self, present: Sequence[str]) -> Sequence[str]:
        """What they ought to be without this server. Raises StoreError."""
        ...


class ByLease:
    """Every server whose lease lives."""

    def __init__(self, store: Store, clock: Clock, address: str) -> None:
        self._store = store
        self._clock = clock
        self._address = address
        self._seen: dict[str, tuple[int, float]] = {}  # by key: its revision, and until when it counts

    async def addresses(self, present: Sequence[str]) -> Sequence[str]:
        """Those of all leases, this server's renewed."""
        await self._renew()
        return await self._alive()

    async def _renew(self) -> None:
        key = _PREFIX + self._address
        entry = await self._store.get(key)
        count = 1 + (int(entry.value) if entry is not None and entry.value.isdigit() else 0)
        try:
            if entry is None:
                await self._store.create(key, b"%d" % count)
            else:
                await self._store.update(key, b"%d" % count, entry.revision)
        except (KeyExists, RevisionConflict):
            return  # another server at the same address: its write keeps the lease as well

    async def _alive(self) -> Sequence[str]:
        now = self._clock.monotonic()
        found: dict[str, tuple[int, float]] = {}
        for entry in (await self._store.list(_PREFIX)).entries:
            revision, until = self._seen.get(entry.key, (0, 0.0))
            if revision != entry.revision:
                revision, until = entry.revision, now + _LIFE
            if until > now:
                found[entry.key] = (revision, until)
            else:
                await self._drop(entry.key, entry.revision)
        self._seen = found
        return [key.removeprefix(_PREFIX) for key in found]

    async def _drop(self, key: str, revision: int) -> None:
        try:
            await self._store.delete(key, revision)
        except RevisionConflict:
            return  # it lives after all, or is gone

    async def leave(self, present: Sequence[str]) -> Sequence[str]:
        """End this server's lease."""
        key = _PREFIX + self._address
        if (entry := await self._store.get(key)) is not None:
            await self._drop(key, entry.revision)
        return [each for each in await self._alive() if each != self._address]


class ByCount:
    """A number of servers that is known: each adds itself, and too many are cut off."""

    def __init__(self, address: str, count: int) -> None:
        self._address = address
        self._count = count

    async def addresses(self, present: Sequence[str]) -> Sequence[str]:
        """Those that are there, and this one; those after this one go first when they are too many."""
        if self._address in present and len(present) <= self._count:
            return present
        found = sorted({*present, self._address})
        while len(found) > self._count:
            found.pop((found.index(self._address) + 1) % len(found))
        return found

    async def leave(self, present: Sequence[str]) -> Sequence[str]:
        """Those of the others."""
        return [each for each in present if each != self._address]


class Masters:
    """Keeps the endpoints as the policy says."""

    def __init__(self, server: Any, clock: Clock, port: int, policy: Policy) -> None:
        self._server = server
        self._clock = clock
        self._port = port
        self._policy = policy
        self._left = False
        self._one_at_a_time = asyncio.Lock()

    def _present(self) -> Sequence[str]:
        kind = self._server.registry.find("", "endpoints")
        item = self._server.storage.find(kind, "default", "kubernetes")
        subsets = (item.obj().get("subsets") or []) if item is not None else []
        return [each["ip"] for each in subsets[0].get("addresses") or ()] if len(subsets) == 1 else []

    async def keep(self) -> None:
        """Once: renew what says that this server is there, and write what differs. Raises StoreError, ApiError."""
        async with self._one_at_a_time:
            if self._left:
                return
            if not (addresses := await self._policy.addresses(self._present())):
                raise StoreUnavailable("no API server IP addresses were listed in storage, refusing to erase all")
            await publish(self._server, addresses, self._port)

    async def run(self) -> None:
        """Again and again."""
        while True:
            await self._clock.sleep(_EVERY)
            try:
                await self.keep()
            except (StoreError, ApiError) as error:
                log.error("unable to sync kubernetes service: %s", error)

    async def leave(self) -> None:
        """Take this server out, so that nobody is sent to it."""
        try:
            async with asyncio.timeout(_PATIENCE), self._one_at_a_time:
                self._left = True
                await publish(self._server, await self._policy.leave(self._present()), self._port)
        except (StoreError, ApiError, TimeoutError) as error:
            log.error("unable to remove endpoints from kubernetes service: %s", error)


async def publish(server: Any, addresses: Sequence[str], port: int) -> None:
    """Write the endpoints of the `kubernetes` Service, which may not be loopback addresses. Raises ApiError."""
    given, addresses = addresses, sorted(each for each in addresses if not each.startswith("127."))
    if given and not addresses:
        return
    meta = {"name": "kubernetes", "namespace": "default"}
    ports = [{"name": "https", "port": port, "protocol": "TCP"}]
    subsets = [{"addresses": [{"ip": each} for each in addresses], "ports": ports}] if addresses else []
    mirror = {"endpointslice.kubernetes.io/skip-mirror": "true"}
    await reconcile(server, ENDPOINTS, {"metadata": {**meta, "labels": mirror}, "subsets": subsets})
    labels = {"kubernetes.io/service-name": "kubernetes"}
    endpoints = [{"addresses": [each], "conditions": {"ready": True}} for each in addresses]
    made = {"metadata": {**meta, "labels": labels}, "addressType": "IPv4", "endpoints": endpoints, "ports": ports}
    await reconcile(server, ENDPOINTSLICES, made)
