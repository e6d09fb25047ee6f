"""An API as small as the kubelet's tests need: objects in a dict, watches that replay, statuses merged."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from steersman.api.errors import ApiError
from steersman.api.resource import PODS, Object, Resource
from steersman.lib.clock import Clock, rfc3339


@dataclass
class Page:
    items: list[Object]
    resource_version: str
    continue_: str = ""


@dataclass
class Event:
    type: str
    object: Object


class Api:
    """Holds objects; is both the client and the source of informers."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.version = 0
        self.log: list[tuple[int, str, str, Object]] = []
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.changed = asyncio.Condition()
        self.requests: list[tuple[str, str, str]] = []
        self.statuses: list[Object] = []
        self.events: list[tuple[str, str, str, str]] = []
        self.down = False
        self.tokens = 0
        self._informers: dict[tuple[str, str], Informer] = {}

    # For tests.

    def put(self, resource: Resource, obj: Object) -> Object:
        meta = obj["metadata"]
        key = (resource.plural, meta.get("namespace", ""), meta["name"])
        self.version += 1
        old = self.objects.get(key)
        stored = copy.deepcopy(obj)
        stored["metadata"]["resourceVersion"] = str(self.version)
        self.objects[key] = stored
        self._tell("MODIFIED" if old else "ADDED", resource, stored)
        return stored

    def remove(self, resource: Resource, namespace: str, name: str) -> None:
        old = self.objects.pop((resource.plural, namespace, name), None)
        if old is not None:
            self.version += 1
            gone = copy.deepcopy(old)
            gone["metadata"]["resourceVersion"] = str(self.version)
            self._tell("DELETED", resource, gone)

    def pod(self, name: str, namespace: str = "default") -> Object | None:
        return self.objects.get(("pods", namespace, name))

    def delete_gracefully(self, name: str, seconds: int = 30, namespace: str = "default") -> None:
        pod = copy.deepcopy(self.objects["pods", namespace, name])
        pod["metadata"]["deletionTimestamp"] = rfc3339(self.clock.now() + seconds)
        pod["metadata"]["deletionGracePeriodSeconds"] = seconds
        self.put(PODS, pod)

    def reasons(self) -> list[str]:
        return [each[2] for each in self.events]

    async def until(self, check: Callable[[], bool], seconds: float = 3600.0) -> None:
        """Wait for something to become true, by the loop's clock."""
        async with asyncio.timeout(seconds):
            while not check():
                async with self.changed:
                    try:
                        await asyncio.wait_for(self.changed.wait(), 0.25)
                    except TimeoutError:
                        continue

    def _tell(self, kind: str, resource: Resource, obj: Object) -> None:
        self.log.append((self.version, kind, resource.plural, obj))
        for (plural, fields), informer in self._informers.items():
            if plural == resource.plural and _selects(fields, obj):
                informer.notice(kind, obj)

        async def wake() -> None:
            async with self.changed:
                self.changed.notify_all()

        self._waking = asyncio.ensure_future(wake())

    # The client's side.

    def _asked(self, verb: str, resource: Resource, name: str) -> None:
        if self.down:
            raise ConnectionRefusedError("api is down")
        self.requests.append((verb, resource.plural, name))

    async def get(self, resource: Resource, name: str, namespace: str = "", *, subresource: str = "") -> Object:
        self._asked("get", resource, name)
        return self._found(resource, namespace, name)

    def _found(self, resource: Resource, namespace: str, name: str) -> Object:
        found = self.objects.get((resource.plural, namespace, name))
        if found is None:
            raise ApiError(404, "NotFound", f'{resource.plural} "{name}" not found')
        return found

    async def list(self, resource: Resource, namespace: str = "", *, fields: str = "", **_: Any) -> Page:
        self._asked("list", resource, fields)
        items = [
            each
            for (plural, where, _), each in self.objects.items()
            if plural == resource.plural and namespace in ("", where) and _selects(fields, each)
        ]
        return Page(items, str(self.version))

    async def watch(
        self, resource: Resource, namespace: str = "", *, resource_version: str, fields: str = "", **_: Any
    ) -> AsyncIterator[Event]:
        self._asked("watch", resource, fields)
        seen = int(resource_version)
        while True:
            for version, kind, plural, obj in list(self.log):
                where = obj["metadata"].get("namespace", "")
                if version > seen and plural == resource.plural and namespace in ("", where) and _selects(fields, obj):
                    yield Event(kind, obj)
            seen = self.version
            async with self.changed:
                while self.version == seen:
                    await self.changed.wait()

    async def create(
        self, resource: Resource, obj: Object, namespace: str = "", *, name: str = "", subresource: str = ""
    ) -> Object:
        self._asked("create", resource, name or obj["metadata"]["name"])
        if subresource == "token":
            self.tokens += 1
            expires = rfc3339(self.clock.now() + obj["spec"]["expirationSeconds"])
            return {"status": {"token": f"token-{self.tokens}", "expirationTimestamp": expires}}
        key = (resource.plural, namespace, obj["metadata"]["name"])
        if key in self.objects:
            raise ApiError(409, "AlreadyExists", "already exists")
        return self.put(resource, obj)

    async def update(self, resource: Resource, obj: Object, *, subresource: str = "") -> Object:
        self._asked("update", resource, obj["metadata"]["name"])
        return self.put(resource, obj)

    async def patch(
        self, resource: Resource, name: str, namespace: str, body: Object, *, subresource: str = "", **_: Any
    ) -> Object:
        self._asked("patch", resource, name)
        found = copy.deepcopy(self._found(resource, namespace, name))
        wanted = body.get("metadata", {}).get("uid")
        if wanted and wanted != found["metadata"].get("uid"):
            raise ApiError(409, "Conflict", "the UID in the precondition does not match")
        for part, value in body.items():
            if part == "metadata":
                continue
            found[part] = _merge(found.get(part) or {}, value)
        if resource == PODS:
            self.statuses.append(found["status"])
        return self.put(resource, found)

    async def delete(self, resource: Resource, name: str, namespace: str = "", *, uid: str = "", **_: Any) -> Object:
        self._asked("delete", resource, name)
        found = self._found(resource, namespace, name)
        if uid and uid != found["metadata"].get("uid"):
            raise ApiError(409, "Conflict", "other uid")
        self.remove(resource, namespace, name)
        return found

    # Informers and events.

    def informer(self, resource: Resource, *, namespace: str = "", fields: str = "", labels: str = "") -> Informer:
        key = (resource.plural, fields)
        if key not in self._informers:
            informer = Informer()
            for (plural, _, _), obj in self.objects.items():
                if plural == resource.plural and _selects(fields, obj):
                    informer.notice("ADDED", obj)
            self._informers[key] = informer
        return self._informers[key]

    def forget_informers(self) -> None:
        """A component died: what it had asked for tells nobody any more."""
        self._informers.clear()

    def event(self, regarding: Object, type: str, reason: str, message: str) -> None:
        self.events.append((regarding.get("fieldPath", ""), type, reason, message))


class Informer:
    def __init__(self) -> None:
        self._objects: dict[tuple[str, str], Object] = {}
        self._handlers: list[Callable[[Object | None, Object | None], None]] = []

    def notice(self, kind: str, obj: Object) -> None:
        key = (obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        old = self._objects.get(key)
        if kind == "DELETED":
            self._objects.pop(key, None)
        else:
            self._objects[key] = obj
        for handler in self._handlers:
            handler(old, None if kind == "DELETED" else obj)

    def get(self, namespace: str, name: str) -> Object | None:
        return self._objects.get((namespace, name))

    def list(self, namespace: str | None = None) -> list[Object]:
        return [each for (where, _), each in self._objects.items() if namespace in (None, where)]

    def add_handler(self, handler: Callable[[Object | None, Object | None], None]) -> None:
        self._handlers.append(handler)
        for obj in list(self._objects.values()):
            handler(None, obj)

    async def synced(self) -> None:
        return


def _selects(fields: str, obj: Object) -> bool:
    for each in filter(None, fields.split(",")):
        path, _, wanted = each.partition("=")
        value: Any = obj
        for part in path.split("."):
            value = (value or {}).get(part)
        if value != wanted:
            return False
    return True


_KEYS = {"conditions": "type", "podIPs": "ip", "hostIPs": "ip"}


def _merge(old: Object, patch: Object) -> Object:
    out = dict(old)
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        elif key in _KEYS:
            items = {each[_KEYS[key]]: each for each in out.get(key) or []}
            for each in value:
                name = each[_KEYS[key]]
                if each.get("$patch") == "delete":
                    items.pop(name, None)
                else:
                    items[name] = _merge(items.get(name) or {}, each)
            out[key] = list(items.values())
        elif isinstance(value, dict):
            out[key] = _merge(out.get(key) or {}, value)
        else:
            out[key] = value
    return out
