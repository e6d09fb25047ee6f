"""Keeps one node's nftables table true to the cluster's Services and EndpointSlices.

Owns the loop: informer events mark Services as changed, and one transaction carries all that changed meanwhile. Level
triggered: whatever fails is tried again from the whole picture. Started by `cluster`; told of host ports by whoever
runs the pods. It knows neither containers nor the kubelet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from steersman.api.resource import ENDPOINTSLICES, SERVICES, Object
from steersman.lib.backoff import Backoff
from steersman.proxy import conntrack as conntracking
from steersman.proxy import nftables
from steersman.proxy.apply import Applier, NftablesError
from steersman.proxy.conntrack import Conntrack, Target
from steersman.proxy.elements import Elements
from steersman.proxy.model import SERVICE_NAME_LABEL, Frontend, HostPort, Where, frontends, host_port_frontends
from steersman.proxy.nftables import Chains, Settings

if TYPE_CHECKING:
    from steersman.client.informer import Informers
    from steersman.lib.clock import Clock

log = logging.getLogger(__name__)

_BY_SERVICE = "service"
_HOST_PORTS = " host ports"  # no Service's key has a space
_GATHER = 0.005  # seconds after a change in which others may join its transaction


class Proxy:
    """One node's proxy. `run` until cancelled; the table stays when it stops, so that traffic goes on."""

    def __init__(
        self,
        informers: Informers,
        clock: Clock,
        applier: Applier,
        settings: Settings,
        where: Where,
        conntrack: Conntrack | None = None,
    ) -> None:
        """`conntrack`: where stale UDP flows are deleted; None: nowhere."""
        self._clock = clock
        self._applier = applier
        self._settings = settings
        self._where = where
        self._services = informers.informer(SERVICES)
        self._slices = informers.informer(ENDPOINTSLICES)
        self._conntrack = conntrack
        self._udp: dict[str, dict[Target, frozenset[Target]]] = {}  # by owner, where UDP ports led
        self._udp_now: dict[str, dict[Target, frozenset[Target]]] = {}  # what is not looked at yet
        self._elements = Elements()
        self._chains: dict[str, Chains] = {}  # by owner
        self._shared: set[str] = set()  # chains for any frontend that are in the kernel
        self._host_ports: tuple[HostPort, ...] = ()
        self._dirty: set[str] = set()
        self._whole = True  # the whole table is to be set
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._backoff: Backoff[str] = Backoff(0.1, 30.0)

    def set_host_ports(self, ports: Iterable[HostPort]) -> None:
        """The host ports of the pods here, all of them."""
        found = tuple(ports)
        if found != self._host_ports:
            self._host_ports = found
            self._mark(_HOST_PORTS)

    def resync(self) -> None:
        """Set the whole table again soon."""
        self._whole = True
        self._mark(_HOST_PORTS)

    async def settled(self) -> None:
        """Wait until the kernel has everything that the informers have told so far."""
        await self._settled.wait()

    async def run(self) -> None:
        """Follow Services and slices until cancelled."""
        self._slices.add_index(_BY_SERVICE, _services_of)
        self._services.add_handler(self._service_changed)
        self._slices.add_handler(self._slice_changed)
        await self._services.synced()
        await self._slices.synced()
        await self._until_done(self._replace)
        while True:
            if not self._dirty:
                self._settled.set()
                await self._wake.wait()
                await self._clock.sleep(_GATHER)
            await self._until_done(self._replace if self._whole else self._update)

    def _mark(self, key: str) -> None:
        self._dirty.add(key)
        self._settled.clear()
        self._wake.set()

    def _service_changed(self, old: Object | None, new: Object | None) -> None:
        self._mark(_key(new or old or {}))

    def _slice_changed(self, old: Object | None, new: Object | None) -> None:
        for obj in (old, new):
            for key in _services_of(obj) if obj is not None else ():
                self._mark(key)

    async def _until_done(self, work: Callable[[], Awaitable[None]]) -> None:
        """One change; should it fail, the whole table until that works."""
        while True:
            try:
                await work()
            except NftablesError as error:
                delay = self._backoff.next("")
                log.error("cannot set table %s (again in %.1f s): %s", self._settings.table, delay, error)
                await self._clock.sleep(delay)
                work = self._replace
            else:
                self._backoff.forget("")
                await self._forget_flows()
                return

    async def _forget_flows(self) -> None:
        """Delete the UDP flows that lead where the table no longer does."""
        now: dict[Target, frozenset[Target]] = {}
        for key, found in self._udp_now.items():
            now |= conntracking.changed(self._udp.get(key, {}), found)
            if found:
                self._udp[key] = found
            else:
                self._udp.pop(key, None)
        self._udp_now.clear()
        if not now or self._conntrack is None:
            return
        try:
            await asyncio.to_thread(self._conntrack.flush, now)
        except OSError as error:
            log.warning("cannot delete UDP flows to endpoints that are gone: %s", error)

    def _compute(self, keys: Iterable[str]) -> tuple[dict[str, dict[str, dict[str, str]]], dict[str, Chains]]:
        contributions: dict[str, dict[str, dict[str, str]]] = {}
        chains: dict[str, Chains] = {}
        for key in keys:
            found = self._frontends(key)
            contributions[key], chains[key] = nftables.elements(found)
            self._udp_now[key] = conntracking.targets(found)
        return contributions, chains

    def _frontends(self, key: str) -> list[Frontend]:
        if key == _HOST_PORTS:
            return host_port_frontends(self._host_ports)
        namespace, _, name = key.partition("/")
        service = self._services.get(namespace, name)
        if service is None or service["metadata"].get("deletionTimestamp"):
            return []
        return frontends(service, self._slices.by_index(_BY_SERVICE, key), self._where)

    async def _replace(self) -> None:
        """Compute everything and replace the table."""
        self._whole = False
        self._dirty.clear()
        self._wake.clear()
        keys = [_HOST_PORTS, *(_key(service) for service in self._services.list())]
        self._udp_now.update({key: {} for key in self._udp})
        contributions, self._chains = self._compute(keys)
        self._elements = Elements()
        self._elements.replace(contributions)
        chains = _merged(self._chains.values())
        text = nftables.whole(self._settings, self._elements.effective, chains)
        self._shared = nftables.shared_chains(self._elements.effective, chains)
        await self._applier.apply(text)

    async def _update(self) -> None:
        """Carry what changed into the kernel."""
        keys, self._dirty = self._dirty, set()
        self._wake.clear()
        contributions, chains = self._compute(keys)
        before = _merged(self._chains.values())
        self._chains.update(chains)
        for key in [key for key, made in chains.items() if not made.rules]:
            del self._chains[key]
        after = _merged(self._chains.values())
        change = self._elements.replace(contributions)
        added, gone = _without(after, before), _without(before, after)
        if not change and not added.rules and not gone.rules:
            return
        text, fresh = nftables.update(self._settings, change, added, gone, self._shared)
        self._shared |= fresh
        await self._applier.apply(text)


def _key(obj: Object) -> str:
    return f"{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"


def _services_of(found: Object) -> list[str]:
    name = (found["metadata"].get("labels") or {}).get(SERVICE_NAME_LABEL)
    return [f"{found['metadata'].get('namespace', '')}/{name}"] if name else []


def _merged(many: Iterable[Chains]) -> Chains:
    rules: dict[str, tuple[str, ...]] = {}
    sets: dict[str, int] = {}
    for each in many:
        rules |= each.rules
        sets |= each.sets
    return Chains(rules, sets)


def _without(one: Chains, other: Chains) -> Chains:
    rules = {name: lines for name, lines in one.rules.items() if name not in other.rules}
    return Chains(rules, {name: value for name, value in one.sets.items() if name not in other.sets})
