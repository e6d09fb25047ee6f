"""The Lease by which an API server says that it is there, and the end of those of servers that are not.

Owns the Leases with the label apiserver.kubernetes.io/identity. Started by `cluster` for a server with a process of its
own; nobody waits for it. Source: KEP-1965, kubernetes' pkg/controlplane/apiserver and controller/apiserverleasegc.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from typing import Any

from steersman.api.errors import ApiError
from steersman.api.resource import LEASES, Object
from steersman.apiserver.bootstrap import internal_call, reconcile
from steersman.apiserver.verbs.delete import delete_item
from steersman.lib.clock import Clock, parse_rfc3339, rfc3339_micro
from steersman.store.interface import StoreError

log = logging.getLogger(__name__)

LABEL, NAMESPACE = "apiserver.kubernetes.io/identity", "kube-system"
_EVERY, _LIFE = 10.0, 3600  # seconds between renewals, and that a Lease is good for
_COLLECT_EVERY = 3600.0


def identity(hostname: str, port: int) -> str:
    """The name of a server, always the same for the same host and port."""
    digest = hashlib.sha256(f"{hostname}:{port}".encode()).digest()[:16]
    return "apiserver-" + base64.b32encode(digest).decode().rstrip("=").lower()


class Presence:
    """Keeps one server's Lease, and removes those that nobody keeps."""

    def __init__(self, server: Any, clock: Clock, hostname: str, port: int, uid: str) -> None:
        """`uid`: of this life of the server."""
        self._server = server
        self._clock = clock
        self._name = identity(hostname, port)
        self._labels = {LABEL: "kube-apiserver", "kubernetes.io/hostname": hostname}
        self._holder = f"{self._name}_{uid}"

    async def run(self) -> None:
        """For ever."""
        collect = self._clock.monotonic() + _COLLECT_EVERY
        while True:
            try:
                await self.renew()
                if self._clock.monotonic() >= collect:
                    collect += _COLLECT_EVERY
                    await self.collect()
            except (ApiError, StoreError) as error:
                log.error("unable to keep the Lease of this API server: %s", error)
            await self._clock.sleep(_EVERY)

    async def renew(self) -> None:
        """Say once that this server is there. Raises ApiError, StoreError."""
        now = rfc3339_micro(self._clock.now())
        spec = {"holderIdentity": self._holder, "leaseDurationSeconds": _LIFE, "renewTime": now}
        meta = {"name": self._name, "namespace": NAMESPACE, "labels": dict(self._labels)}
        await reconcile(self._server, LEASES, {"metadata": meta, "spec": spec})

    async def collect(self) -> None:
        """Remove the Leases of servers that are gone. Raises ApiError, StoreError."""
        kind, storage = self._server.registry.find(LEASES.group, LEASES.plural), self._server.storage
        for _, item in list(storage.cache(kind).items(storage.prefix(kind, NAMESPACE))):
            if item.labels.get(LABEL) == "kube-apiserver" and self._expired(item.obj().get("spec") or {}):
                await delete_item(internal_call(self._server, LEASES, "delete", NAMESPACE, item.name), item, {})

    def _expired(self, spec: Object) -> bool:
        """One without a time or a duration is nobody's."""
        if not spec.get("renewTime") or spec.get("leaseDurationSeconds") is None:
            return True
        return parse_rfc3339(spec["renewTime"]) + spec["leaseDurationSeconds"] < self._clock.now()
