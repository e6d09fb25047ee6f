"""componentstatuses: how the scheduler, the controllers and the store are, made up when somebody asks.

Owns the three objects. Called by the API server in place of get and list. The original asks the components' own ports;
here they tell by the Lease that they hold. Source: pkg/registry/core/componentstatus.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from steersman.api import errors
from steersman.api.resource import Object
from steersman.apiserver.cache import Item, ItemKind, to_value
from steersman.apiserver.call import Call
from steersman.apiserver.verbs.read import selection
from steersman.lib.clock import parse_rfc3339
from steersman.lib.http.messages import Answer
from steersman.store.interface import StoreUnavailable

_HELD = (("scheduler", "kube-scheduler", 10259), ("controller-manager", "kube-controller-manager", 10257))
_PATIENCE = 5.0  # seconds for the store


def component_statuses(server: Any, call: Call) -> Answer | Awaitable[Answer]:
    """get or list."""
    return _answer(call)


async def _answer(call: Call) -> Answer:
    found = [_of_lease(call, *each) for each in _HELD]
    found.append(await _of_store(call))
    kind = ItemKind(call.kind)
    items = [Item(kind, "", each["metadata"]["name"], to_value(each)[len(kind.prefix) :], 0) for each in found]
    encoder = call.encoder()
    if call.info.verb == "list":
        chosen = selection(call)
        return call.respond(200, encoder.list([item for item in items if chosen.matches(item)], {}))
    for item in items:
        if item.name == call.info.name:
            return call.respond(200, encoder.object(item))
    raise errors.not_found("", "componentstatus", call.info.name)


def _status(name: str, message: str, *, healthy: bool) -> Object:
    condition = {"type": "Healthy", "status": str(healthy), "message": message}
    return {"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name}, "conditions": [condition]}


def _of_lease(call: Call, name: str, lease: str, port: int) -> Object:
    kind = call.services.registry.find("coordination.k8s.io", "leases")
    item = call.storage.find(kind, "kube-system", lease) if kind is not None else None
    spec = (item.obj().get("spec") or {}) if item is not None else {}
    until = parse_rfc3339(spec["renewTime"]) + spec.get("leaseDurationSeconds", 0) if spec.get("renewTime") else 0.0
    if spec.get("holderIdentity") and until > call.services.clock.now():
        return _status(name, "ok", healthy=True)
    where = f"127.0.0.1:{port}"
    text = f'Get "https://{where}/healthz": dial tcp {where}: connect: connection refused'
    return _status(name, text, healthy=False)


async def _of_store(call: Call) -> Object:
    try:
        async with asyncio.timeout(_PATIENCE):
            await call.storage.store.fresh()
    except (StoreUnavailable, TimeoutError) as error:
        return _status("etcd-0", str(error) or "context deadline exceeded", healthy=False)
    return _status("etcd-0", "ok", healthy=True)
