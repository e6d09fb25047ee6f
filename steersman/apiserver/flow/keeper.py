"""Keeps what the gate is configured by: the objects that must be there, and what their status says.

Owns the maintenance of mandatory objects (always as they must be) and suggested ones (as long as nobody made them their
own), and the Dangling condition of flow schemas. Started by `cluster`. Writes through the ordinary pipeline.
Source: kubernetes' pkg/registry/flowcontrol/ensurer, apiserver's pkg/util/flowcontrol/apf_controller.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from steersman.api import flows
from steersman.api.errors import ApiError
from steersman.api.kind import Kind
from steersman.api.resource import Object
from steersman.apiserver.bootstrap import SYSTEM
from steersman.apiserver.cache import Item, stored_api_version
from steersman.apiserver.call import Call
from steersman.apiserver.flow.gate import Gate
from steersman.apiserver.negotiate import DEFAULT
from steersman.apiserver.request import Query, RequestInfo
from steersman.apiserver.verbs import patch
from steersman.apiserver.verbs.write import create_object, update_object
from steersman.lib.clock import rfc3339
from steersman.lib.http.messages import Request
from steersman.store.interface import Event

GROUP = "flowcontrol.apiserver.k8s.io"
ENSURE_EVERY = 60.0  # seconds
_MANAGER = "api-priority-and-fairness-config"
_FIXED = (flows.EXEMPT, flows.CATCH_ALL)
_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")


class Keeper:
    """Follows the objects of one API server, for its gate."""

    def __init__(self, server: Any, seats: int) -> None:
        """`server` has been started; `seats`: how many requests it may answer at a time."""
        self._server = server
        self._clock = server.services.clock
        self._levels: Kind = server.registry.find(GROUP, "prioritylevelconfigurations")
        self._schemas: Kind = server.registry.find(GROUP, "flowschemas")
        self._wake = asyncio.Event()
        self.gate = Gate(
            self._clock,
            seats,
            lambda: [item.obj() for item in self._items(self._schemas)],
            lambda: [item.obj() for item in self._items(self._levels)],
            self._objects,
        )
        server.storage.on_change.append(self._changed)

    def _items(self, kind: Kind) -> Iterator[Item]:
        storage = self._server.storage
        return (item for _, item in storage.cache(kind).items(storage.prefix(kind)))

    def _objects(self, info: RequestInfo) -> int:
        kind = self._server.registry.by_resource(info.group, info.version, info.resource)
        return 0 if kind is None else len(self._server.storage.cache(kind))

    def _changed(self, kind: Kind, events: Sequence[Event]) -> None:
        if kind is self._schemas or kind is self._levels:
            self.gate.changed()
            self._wake.set()

    async def run(self) -> None:
        """Keep them for ever."""
        while True:
            self._wake.clear()
            await self.conditions()
            try:
                async with asyncio.timeout(ENSURE_EVERY):
                    await self._wake.wait()
            except TimeoutError:
                await self.ensure()

    async def ensure(self) -> None:
        """Make what is missing, correct what nobody has made their own."""
        for kind, wanted in ((self._levels, flows.levels()), (self._schemas, flows.schemas())):
            await asyncio.gather(*(self._ensure(kind, name, obj) for name, obj in wanted.items()))

    def _call(self, kind: Kind, verb: str, name: str, role: str, request: Request | None = None) -> Call:
        version = kind.storage_version.name
        info = RequestInfo("", verb, True, kind.group, version, kind.plural, "", "", name)
        manager = f"{_MANAGER}-{role}-v1"
        query = Query(f"fieldManager={manager}&force=true" if request else "")
        call = Call(self._server.services, request or Request(verb, ""), info, query, kind, version, SYSTEM, DEFAULT)
        call.options = {"fieldManager": manager}
        return call

    async def _ensure(self, kind: Kind, name: str, wanted: Object) -> None:
        spec = _of_release(wanted["spec"], kind)
        item = self._server.storage.find(kind, "", name)
        try:
            if item is None:
                whole = {"apiVersion": stored_api_version(kind), "kind": kind.kind, **wanted, "spec": spec}
                await create_object(self._call(kind, "create", "", "producer"), whole)
                return
            current = item.obj()
            revised = revise(current, spec, fixed=name in _FIXED)
            if revised is not None and not _same(revised, current):
                await update_object(self._call(kind, "update", name, "producer"), item, lambda _: revised, retry=False)
        except ApiError as error:
            if error.reason not in ("AlreadyExists", "Conflict", "NotFound"):  # somebody else was first: next time
                raise

    async def conditions(self) -> None:
        """Every flow schema says whether its level exists."""
        levels = {item.name for item in self._items(self._levels)} | set(_FIXED)
        for schema in [item.obj() for item in self._items(self._schemas)]:
            wanted = dangling(schema, levels, rfc3339(self._clock.now()))
            if wanted is not None:
                await self._tell(schema["metadata"]["name"], wanted)

    async def _tell(self, name: str, condition: Object) -> None:
        kind = self._schemas
        told = {"metadata": {"name": name}, "status": {"conditions": [condition]}}
        body = {"apiVersion": kind.api_version(kind.storage_version.name), "kind": kind.kind, **told}
        media = [("content-type", "application/apply-patch+yaml")]
        request = Request("PATCH", "", "", media, msgspec.json.encode(body))
        call = self._call(kind, "patch", name, "consumer", request)
        call.info.subresource = "status"
        try:
            await patch.patch(call)
        except ApiError as error:
            if error.reason not in ("NotFound", "Conflict"):
                raise


def revise(current: Object, spec: Object, *, fixed: bool) -> Object | None:
    """The object as it should be; None when it is somebody's own. `fixed`: it is nobody's own ever."""
    meta = current["metadata"]
    said = (meta.get("annotations") or {}).get(flows.AUTOUPDATE)
    ours = fixed or said in _TRUE or (said not in _FALSE and meta.get("generation") == 1)
    if not ours and said in _FALSE:
        return None
    annotations = {**(meta.get("annotations") or {}), flows.AUTOUPDATE: "true" if ours else "false"}
    return {**current, "metadata": {**meta, "annotations": annotations}, "spec": spec if ours else current["spec"]}


def dangling(schema: Object, levels: set[str], now: str) -> Object | None:
    """The condition that a flow schema should get; None when it has it."""
    level = schema["spec"]["priorityLevelConfiguration"]["name"]
    text = f'This FlowSchema references the PriorityLevelConfiguration object named "{level}" '
    wanted = {
        "type": "Dangling",
        "status": "True",
        "reason": "NotFound",
        "message": f"{text}but there is no such object",
    }
    if level in levels:
        wanted |= {"status": "False", "reason": "Found", "message": f"{text}and it exists"}
    for condition in (schema.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "Dangling" and wanted.items() <= condition.items():
            return None
    return {**wanted, "lastTransitionTime": now}


def _of_release(spec: Object, kind: Kind) -> Object:
    """Before v1beta3 shares had another name, and nothing was lent."""
    if kind.storage_version.name not in ("v1beta1", "v1beta2") or "type" not in spec:
        return spec
    limited = spec.get("limited")
    if limited is None:
        return {"type": spec["type"]}
    limited = {
        key: value for key, value in limited.items() if key not in ("nominalConcurrencyShares", "lendablePercent")
    }
    return {
        "type": spec["type"],
        "limited": {"assuredConcurrencyShares": spec["limited"]["nominalConcurrencyShares"], **limited},
    }


def _same(one: Object, other: Object) -> bool:
    return one["spec"] == other["spec"] and one["metadata"] == other["metadata"]
