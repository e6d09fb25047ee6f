"""Services and their IPAddresses are made to agree again, and what cannot be mended is said in events.

Owns the repair after crashes, after users who delete or change IPAddresses, and of stores that are older than those.
Everything is looked at when a server starts, and later what changed, a minute after it did: by then its write is done.
Node ports have no objects, so of those there are only complaints. Run by `cluster` beside the API server.
Source: pkg/registry/core/service/ipallocator/controller/repairip.go, portallocator/controller/repair.go; texts are the
original's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from steersman.api.errors import ApiError
from steersman.api.kind import Kind
from steersman.api.names import parse_ip
from steersman.api.resource import EVENTS, Object
from steersman.apiserver.bootstrap import internal_call
from steersman.apiserver.cache import Item, decode
from steersman.apiserver.ipaddresses import IpAddresses, addresses_of, labels_of, managed, parent_of
from steersman.apiserver.ipalloc import Allocator
from steersman.apiserver.verbs.write import create_object
from steersman.lib.clock import Clock, rfc3339_micro
from steersman.lib.tasks import turn
from steersman.store.interface import Event

log = logging.getLogger(__name__)

_INTERVAL = 60.0  # seconds
_BATCH = 200  # objects between two turns of everybody else
_ADDRESSES, _PORTS = "ipallocator-repair-controller", "portallocator-repair-controller"
Where = tuple[str, str]  # namespace and name of a Service


def node_ports_of(service: Object) -> list[int]:
    """A Service's node ports; one that it uses twice for the same protocol is twice there."""
    spec, out, seen = service["spec"], list[int](), set[tuple[int, str]]()
    for port in spec.get("ports") or ():
        number, protocol = port.get("nodePort") or 0, port.get("protocol", "TCP")
        if number and (number not in out or (number, protocol) in seen):
            out.append(number)
        seen.add((number, protocol))
    health = spec.get("healthCheckNodePort") or 0
    if health and (health not in out or (health, "TCP") in seen):
        out.append(health)
    return out


class Repair:
    """The repair of one server's Services."""

    def __init__(self, server: Any, allocator: Allocator, clock: Clock) -> None:
        self._server = server
        self._allocator = allocator
        self._addresses: IpAddresses = allocator.addresses
        self._clock = clock
        self._services: Kind = server.registry.find("", "services")
        self._said = 0
        self._changed: tuple[set[Where], set[str]] = set(), set()

    async def run(self) -> None:
        """Until cancelled: everything once, then what changes."""
        storage = self._server.storage
        storage.on_change.append(self._heard)
        await self._look([(item.namespace, item.name) for item in self._all(self._services)], self._names())
        await self.ports()
        while True:
            services, names = self._changed
            self._changed = set(), set()
            await self._clock.sleep(_INTERVAL)
            await self._look(sorted(services), sorted(names))

    def _names(self) -> list[str]:
        return [item.name for item in self._all(self._addresses.kind)] if self._addresses.kind is not None else []

    def _all(self, kind: Kind) -> list[Item]:
        storage = self._server.storage
        return [item for _, item in storage.cache(kind).items(storage.prefix(kind))]

    def _heard(self, kind: Kind, events: Sequence[Event]) -> None:
        services, names = self._changed
        if kind is self._services:
            services.update((event.key.split("/")[3], event.key.split("/")[4]) for event in events)
        elif kind is self._addresses.kind:
            for event in events:
                names.add(event.key.rpartition("/")[2])
                for value in (event.value, event.previous):
                    parent = parent_of(decode(value)) if value is not None else ("", "", "", "")
                    if parent[:2] == ("", "services"):
                        services.add(parent[2:])

    async def _look(self, services: Iterable[Where], names: Iterable[str]) -> None:
        """Look at Services, then at IPAddresses; what cannot be written now is looked at again."""
        for number, where in enumerate(services, 1):
            try:
                await self._service(*where)
            except ApiError as error:
                log.warning("cannot repair the addresses of Service %s/%s: %s", *where, error)
                self._changed[0].add(where)
            if number % _BATCH == 0:
                await turn()
        for number, name in enumerate(names, 1):
            try:
                await self._address(name)
            except ApiError as error:
                log.warning("cannot repair IPAddress %s: %s", name, error)
                self._changed[1].add(name)
            if number % _BATCH == 0:
                await turn()

    # Addresses -------------------------------------------------------------------------------------------------------

    async def _service(self, namespace: str, name: str) -> None:
        """Each address of a Service has its IPAddress."""
        item = self._server.storage.find(self._services, namespace, name)
        if item is None or self._addresses.kind is None:
            return
        service = item.obj()
        for address in addresses_of(service):
            await self._of_service(service, namespace, name, address)

    async def _of_service(self, service: Object, namespace: str, name: str, address: str) -> None:
        parsed = parse_ip(address)
        if parsed is None:
            text = f"Cluster IP {address} is not a valid IP; please recreate Service"
            await self._tell(service, _ADDRESSES, "ClusterIPNotValid", "ClusterIPValidation", text)
            return
        family = f"IPv{parsed.version}"
        shown = f"Cluster IP [{family}]: {address}"
        if not any(parsed in network for network in self._allocator.ranges(family)):
            text = (
                f"Cluster IP [{family}]: {address} is not within any configured Service CIDR; please recreate service"
            )
            await self._tell(service, _ADDRESSES, "ClusterIPOutOfRange", "ClusterIPAllocation", text)
            return
        found = self._addresses.find(str(parsed))
        if found is None:
            text = f"{shown} is not allocated; repairing"
        elif (problem := self._wrong(found.obj(), namespace, name)) == "another's":
            text = f"Cluster IP [{family}]:{address} was assigned to multiple services; please recreate service"
            await self._tell(service, _ADDRESSES, "ClusterIPAlreadyAllocated", "ClusterIPAllocation", text)
            return
        elif problem:
            text = (
                f"the ClusterIP [{family}]: {address} for Service {namespace}/{name} has a wrong reference; repairing"
            )
        elif found.labels == labels_of(found.name):
            return
        else:
            text = ""
        if text:
            await self._tell(service, _ADDRESSES, "ClusterIPNotAllocated", "ClusterIPAllocation", text)
        if found is None or await self._addresses.drop(found):
            await self._addresses.make(str(parsed), namespace, name)

    def _wrong(self, address: Object, namespace: str, name: str) -> str:
        """What is wrong with an IPAddress that should be this Service's; nothing when it is."""
        group, resource, *other = parent_of(address)
        if (group, resource) != ("", "services"):
            return "no Service's"
        if other == [namespace, name]:
            return ""
        holder = self._server.storage.find(self._services, *other)
        held = holder is not None and address["metadata"]["name"] in addresses_of(holder.obj())
        return "another's" if held else "nobody's"

    async def _address(self, name: str) -> None:
        """Each IPAddress of ours is for a Service that has it."""
        item = self._addresses.find(name)
        if item is None or not managed(address := item.obj()):
            return
        group, resource, namespace, service = parent_of(address)
        found = self._server.storage.find(self._services, namespace, service)
        reason = "IPAddressNotAllocated"
        if (group, resource) != ("", "services"):
            text = f"IPAddress {name} appears to have been modified, not referencing a Service: cleaning up"
        elif found is None:
            text = f"IPAddress: {name} for Service {namespace}/{service} appears to have leaked: cleaning up"
        elif name in addresses_of(found.obj()):
            return
        else:
            reason = "IPAddressWrongReference"
            text = f"IPAddress: {name} for Service {namespace}/{service} has a wrong reference; cleaning up"
        await self._tell(address, _ADDRESSES, reason, "IPAddressAllocation", text)
        await self._addresses.drop(item)

    # Node ports ------------------------------------------------------------------------------------------------------

    async def ports(self) -> None:
        """Complain of node ports out of the range, and of those that are given twice."""
        low, high = self._allocator.ports
        taken: set[int] = set()
        for item in self._all(self._services):
            service = item.obj()
            for port in node_ports_of(service):
                if not low <= port <= high:
                    text = f"Port {port} is not within the port range {low}-{high}; please recreate service"
                    await self._tell(service, _PORTS, "PortOutOfRange", "PortAllocation", text)
                elif port in taken:
                    text = f"Port {port} was assigned to multiple services; please recreate service"
                    await self._tell(service, _PORTS, "PortAlreadyAllocated", "PortAllocation", text)
                taken.add(port)

    async def _tell(self, about: Object, component: str, reason: str, action: str, text: str) -> None:
        meta, now = about["metadata"], self._clock.now()
        namespace = meta.get("namespace") or "default"
        keys = ("namespace", "name", "uid", "resourceVersion")
        self._said += 1
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{meta['name']}.{int(now * 1e9) + self._said:x}", "namespace": namespace},
            "involvedObject": {
                "apiVersion": about["apiVersion"],
                "kind": about["kind"],
                **{key: meta[key] for key in keys if meta.get(key)},
            },
            "type": "Warning",
            "reason": reason,
            "action": action,
            "message": text,
            "eventTime": rfc3339_micro(now),
            "reportingComponent": component,
            "reportingInstance": f"{component}-kube-apiserver",
        }
        log.info("%s %s: %s", reason, meta["name"], text)
        try:
            await create_object(internal_call(self._server, EVENTS, "create", namespace), event)
        except ApiError as error:
            log.info("cannot write event %s: %s", reason, error)
