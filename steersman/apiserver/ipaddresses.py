"""An IPAddress for each address that a Service has.

Owns those objects: made and deleted with the Service, before the answer to its write. `ipalloc` decides about addresses
and only asks here which are taken by IPAddresses; `iprepair` mends what a crash or a user left. A write goes straight
to the store: nothing in such an object comes from a user. Source: KEP-1880; pkg/registry/core/service/ipallocator.
"""

from __future__ import annotations

import logging
import uuid
from typing import Any

import msgspec

from steersman.api.errors import ApiError
from steersman.api.kind import Kind
from steersman.api.resource import Object
from steersman.apiserver.cache import Item
from steersman.apiserver.ipfamilies import HEADLESS
from steersman.apiserver.storage import Storage
from steersman.lib.clock import Clock, rfc3339

log = logging.getLogger(__name__)

GROUP, VERSION = "networking.k8s.io", "v1"
FAMILY, MANAGED_BY = "ipaddress.kubernetes.io/ip-family", "ipaddress.kubernetes.io/managed-by"
CONTROLLER = "ipallocator.k8s.io"
_FIELDS: Object = {
    "f:metadata": {"f:labels": {".": {}, f"f:{FAMILY}": {}, f"f:{MANAGED_BY}": {}}},
    "f:spec": {"f:parentRef": {".": {}, "f:name": {}, "f:namespace": {}, "f:resource": {}}},
}


def addresses_of(service: Object) -> list[str]:
    """The addresses of a Service, none for a headless one."""
    spec = service.get("spec") or {}
    return [each for each in spec.get("clusterIPs") or () if each and each != HEADLESS]


def parent_of(address: Object) -> tuple[str, str, str, str]:
    """Group, resource, namespace and name of what an IPAddress is for."""
    parent = (address.get("spec") or {}).get("parentRef") or {}
    group, resource, namespace, name = (parent.get(key) or "" for key in ("group", "resource", "namespace", "name"))
    return group, resource, namespace, name


def managed(address: Object) -> bool:
    """Whether an IPAddress is one of these."""
    return (address["metadata"].get("labels") or {}).get(MANAGED_BY) == CONTROLLER


def labels_of(name: str) -> dict[str, str]:
    """What an IPAddress of ours is labelled with."""
    return {FAMILY: "IPv6" if ":" in name else "IPv4", MANAGED_BY: CONTROLLER}


class _Spec(msgspec.Struct):
    clusterIPs: list[str] = []


class _Service(msgspec.Struct):
    spec: _Spec


_service = msgspec.json.Decoder(_Service).decode


def _held(item: Item | None) -> list[str]:
    """As `addresses_of`, without decoding the rest."""
    if item is None:
        return []
    return [each for each in _service(item.json).spec.clusterIPs if each and each != HEADLESS]


class IpAddresses:
    """The IPAddresses of one API server's Services; nothing is there where the release does not serve them."""

    def __init__(self, server: Any) -> None:
        self._storage: Storage = server.storage
        self._clock: Clock = server.services.clock
        self._random = server.services.random
        found: Kind | None = server.registry.find(GROUP, "ipaddresses")
        self.kind = found if found is not None and found.storage_version.name == VERSION else None

    def attach(self, services: Kind) -> None:
        """Follow the writes of Services."""
        if self.kind is not None:
            self._storage.after[services.storage_location] = self._follow

    def find(self, name: str) -> Item | None:
        """The IPAddress of that name."""
        return None if self.kind is None else self._storage.find(self.kind, "", name)

    async def _follow(self, old: Item | None, new: Item | None) -> None:
        """A Service was written: what it gave up goes, what it got comes. The write stands whatever happens here."""
        before, after = _held(old), _held(new)
        if before == after:
            return
        try:
            if old is not None:
                for name in before:
                    if name not in after:
                        await self.remove(name, old.namespace, old.name)
            if new is not None:
                for name in after:
                    if name not in before:
                        await self.make(name, new.namespace, new.name)
        except ApiError as error:
            log.warning("an IPAddress is left to repair: %s", error)

    async def make(self, name: str, namespace: str, service: str) -> None:
        """The IPAddress of a Service. Raises ApiError: another may have that name."""
        if self.kind is None:
            return
        now = rfc3339(self._clock.now())
        wrote = {"manager": "kube-apiserver", "operation": "Update", "apiVersion": f"{GROUP}/{VERSION}", "time": now}
        meta = {
            "name": name,
            "uid": str(uuid.UUID(int=self._random.getrandbits(128), version=4)),
            "creationTimestamp": now,
            "labels": labels_of(name),
            "managedFields": [{**wrote, "fieldsType": "FieldsV1", "fieldsV1": _FIELDS}],
        }
        parent = {"resource": "services", "namespace": namespace, "name": service}
        api_version = f"{GROUP}/{VERSION}"
        made: Object = {"apiVersion": api_version, "kind": "IPAddress", "metadata": meta, "spec": {"parentRef": parent}}
        await self._storage.create(self.kind, made)

    async def remove(self, name: str, namespace: str, service: str) -> None:
        """Delete the IPAddress of a Service; another's stays. Raises ApiError."""
        while (item := self.find(name)) is not None:
            if parent_of(item.obj()) != ("", "services", namespace, service) or await self.drop(item):
                return

    async def drop(self, item: Item) -> bool:
        """Delete one IPAddress; false when it changed meanwhile. Raises ApiError."""
        assert self.kind is not None
        return await self._storage.remove(self.kind, item) is not None
