"""The aggregator: keeps what is known of other API servers in step with the APIService objects.

Owns the table from group and version to the server behind it, the condition Available of each object, and what
discovery says of their resources. Hears of objects from the storage; made and started by `cluster`. Requests are handed
on by `backend`. Source: kube-aggregator.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from steersman.api.discovery import Document, GroupVersion
from steersman.api.errors import ApiError
from steersman.api.kind import Kind
from steersman.api.priorities import Priority
from steersman.api.resource import APISERVICES, Object
from steersman.apiserver.aggregation import availability, remote
from steersman.apiserver.aggregation.automanaged import Automanaged
from steersman.apiserver.aggregation.backend import USUAL, Backend, Patience, Proxy
from steersman.apiserver.aggregation.documents import Documents
from steersman.apiserver.app import Remote
from steersman.apiserver.bootstrap import internal_call
from steersman.apiserver.call import User
from steersman.apiserver.request import RequestInfo
from steersman.apiserver.serviceref import Unroutable
from steersman.apiserver.verbs.write import update_object
from steersman.lib.clock import rfc3339
from steersman.lib.http.messages import Answer, Request
from steersman.lib.tasks import Tasks
from steersman.store.interface import Event

log = logging.getLogger(__name__)

_FIRST_WAIT, _LONGEST_WAIT = 0.05, 30.0  # seconds until a failing one is looked at again, doubled each time


class Extension:
    """One APIService with a Service: its backend, what it serves, and the task that looks after it."""

    def __init__(self, name: str, group: str, version: str, backend: Backend) -> None:
        self.name, self.group, self.version = name, group, version
        self.backend = backend
        self.asked_at: float | None = None
        self.changed = asyncio.Event()
        self.task: asyncio.Task[Any] | None = None
        self.reading: asyncio.Task[Any] | None = None


class Resident(Protocol):
    """An extension API server within this process: it is there as long as its APIService names no Service."""

    priority: Priority

    def resources(self) -> list[Object]:
        """What it serves, as aggregated discovery writes it."""
        ...

    def document(self) -> Document:
        """Its part of the OpenAPI v2 document."""
        ...

    def serve(self, request: Request, user: User, info: RequestInfo) -> Answer | Awaitable[Answer]:
        """Its answer. Raises ApiError."""
        ...


class Aggregator:
    """Implements `api.discovery.Others`. `start` once the server has started."""

    def __init__(
        self,
        server: Any,
        tasks: Tasks,
        proxy: Proxy,
        patience: Patience = USUAL,
        residents: Mapping[GroupVersion, Resident] = MappingProxyType({}),
    ) -> None:
        self.revision = 0
        self.priorities: dict[GroupVersion, Priority] = {}
        self._server = server
        self._tasks = tasks
        self._proxy = proxy
        self._patience = patience
        self._residents = residents
        self._extensions: dict[GroupVersion, Extension] = {}
        self._entries: dict[GroupVersion, Document] = {}
        self.documents = Documents()
        self.backends: dict[GroupVersion, Remote] = {}
        self._automanaged = Automanaged(server)
        self._unsettled: dict[
            tuple[str, str], None
        ] = {}  # plural and name of what may need an APIService, or no longer
        self._wake = asyncio.Event()
        self._heard = {
            (APISERVICES.group, APISERVICES.plural): self._service_changed,
            ("apiextensions.k8s.io", "customresourcedefinitions"): self._definition_changed,
            ("", "services"): self._neighbour_changed,
            ("discovery.k8s.io", "endpointslices"): self._neighbour_changed,
        }

    async def start(self) -> None:
        """Make the objects for what is served here, hand on requests for the rest, then follow changes."""
        server = self._server
        server.discovery.others = self
        server.remote = self.backends
        server.paths.insert(0, self.path)
        kind = self._kind()
        for _, item in list(server.storage.cache(kind).items(server.storage.prefix(kind))):
            self._settle(item.name)
        await self._automanaged.start({where: resident.priority for where, resident in self._residents.items()})
        server.storage.on_change.append(self._changed)
        for _, item in list(server.storage.cache(kind).items(server.storage.prefix(kind))):
            self._settle(item.name)
        self._tasks.spawn(self._follow(), "API services")

    def _kind(self) -> Kind:
        kind: Kind = self._server.registry.find(APISERVICES.group, APISERVICES.plural)
        return kind

    # What discovery asks ----------------------------------------------------------------------------------------------

    def versions(self) -> Mapping[GroupVersion, Document]:
        """The group versions of other servers."""
        return self._entries

    def path(self, request: Request, user: User) -> Answer | Awaitable[Answer] | None:
        """/apis/G/V and /openapi/v3/apis/G/V of another server. Implements `app.NonResource`."""
        if not self.backends:
            return None
        document = request.path.startswith("/openapi/v3/")
        parts = request.path.removeprefix("/openapi/v3").split("/")
        if len(parts) < 4 or parts[1] != "apis" or "".join(parts[4:]):
            return None
        where = parts[2], parts[3]
        backend = self.backends.get(where)
        if backend is None or (document and not self.documents.has_v3(where)):
            return None
        return backend.serve(request, user, RequestInfo(request.path, request.method.lower()))

    # What changes ----------------------------------------------------------------------------------------------------

    def _changed(self, kind: Kind, events: Sequence[Event]) -> None:
        heard = self._heard.get((kind.group, kind.plural))
        if heard is not None:
            for event in events:
                heard(event)

    def _service_changed(self, event: Event) -> None:
        name = event.key.rpartition("/")[2]
        self._settle(name)
        self._unsettled["apiservices", name] = None
        self._wake.set()

    def _definition_changed(self, event: Event) -> None:
        self._unsettled["customresourcedefinitions", event.key.rpartition("/")[2]] = None
        self._wake.set()

    def _neighbour_changed(self, event: Event) -> None:
        """A Service or EndpointSlice: those who are in its namespace are looked at again."""
        if self._extensions:
            namespace = event.key.split("/")[3]
            for extension in self._extensions.values():
                if extension.backend.namespace == namespace:
                    extension.changed.set()

    async def _follow(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._unsettled:
                plural, name = next(iter(self._unsettled))
                del self._unsettled[plural, name]
                try:
                    await (self._automanaged.settle if plural == "apiservices" else self._automanaged.defined)(name)
                except Exception:
                    log.exception("cannot settle the APIServices of %s", name)

    def _settle(self, name: str) -> None:
        """Take over one object as it is now."""
        version, _, group = name.partition(".")
        where = group, version
        item = self._server.storage.find(self._kind(), "", name)
        obj = item.obj() if item is not None else None
        spec = obj["spec"] if obj is not None else {}
        priority = (spec.get("groupPriorityMinimum", 0), spec.get("versionPriority", 0)) if obj is not None else None
        if self.priorities.get(where) != priority:
            if priority is None:
                del self.priorities[where]
            else:
                self.priorities[where] = priority
            self.revision += 1
        known = self._extensions.get(where)
        if obj is None or not spec.get("service"):
            if known is not None:
                self._withdraw(where, known)
            self._house(where, there=obj is not None)
            return
        if known is None or known.backend.spec != spec:
            if known is not None:
                self._withdraw(where, known)
            known = self._serve(name, where, spec)
        before, known.backend.available = known.backend.available, availability.is_available(obj)
        if before and not known.backend.available:
            self._enter(where, _stale(version))

    def _house(self, where: GroupVersion, *, there: bool) -> None:
        """A group version that is no other server's: a resident's, if there is one and its object is there."""
        resident = self._residents.get(where)
        if resident is not None and there:
            self.backends[where] = resident
            self._enter(where, _current(where[1], resident.resources()))
            self.documents.know(where, resident.document())
        elif self.backends.pop(where, None) is not None:
            del self._entries[where]
            self.documents.forget(where)
            self.revision += 1

    def _serve(self, name: str, where: GroupVersion, spec: Object) -> Extension:
        extension = Extension(name, *where, Backend(self._server.services, self._proxy, spec, self._patience))
        self._extensions[where] = extension
        self.backends[where] = extension.backend
        self._enter(where, _stale(extension.version))
        extension.task = self._tasks.spawn(self._attend(extension), f"APIService {name}")
        return extension

    def _withdraw(self, where: GroupVersion, extension: Extension) -> None:
        del self._extensions[where], self.backends[where], self._entries[where]
        self.documents.forget(where)
        self.revision += 1
        for task in (extension.task, extension.reading):
            if task is not None:
                task.cancel()
        self._tasks.spawn(extension.backend.close(), f"end of APIService {extension.name}")

    def _enter(self, where: GroupVersion, entry: Document) -> None:
        if self._entries.get(where) != entry:
            self._entries[where] = entry
            self.revision += 1

    # Looking after one server -----------------------------------------------------------------------------------------

    async def _attend(self, extension: Extension) -> None:
        """Look at a server now, when something near it changes, and from time to time."""
        services, backend = self._server.services, extension.backend
        wait = _FIRST_WAIT
        while True:
            extension.changed.clear()
            try:
                found = await availability.look(services, backend, extension.group, extension.version)
                good = found.status == "True" and await self._discovered(extension)
                await self._report(extension, found)
            except Exception:
                log.exception("cannot look at the APIService %s", extension.name)
                good = False
            wait = _FIRST_WAIT if good else min(wait * 2, _LONGEST_WAIT)
            try:
                async with asyncio.timeout(self._patience.resync if good else wait):
                    await extension.changed.wait()
            except TimeoutError:
                continue

    async def _report(self, extension: Extension, found: availability.Finding) -> None:
        """Write the condition where it says something new."""
        server = self._server
        item = server.storage.find(self._kind(), "", extension.name)
        if item is None:
            return
        obj, now = item.obj(), rfc3339(server.services.clock.now())
        if availability.with_condition(obj, found, now).get("status") == obj.get("status"):
            return
        call = internal_call(server, APISERVICES, "update", "", extension.name)
        call.info.subresource = "status"
        try:
            await update_object(call, item, lambda obj: availability.with_condition(obj, found, now), retry=True)
        except ApiError as error:
            if error.code not in (404, 409):
                raise

    async def _discovered(self, extension: Extension) -> bool:
        """Keep what the server says it serves not too old; whether that is known."""
        now = self._server.services.clock.monotonic()
        where = extension.group, extension.version
        current = self._entries[where]["freshness"] == "Current"
        if current and extension.asked_at is not None and now - extension.asked_at < self._patience.refresh:
            return True
        try:
            resources = await remote.resources_of(extension.backend, *where)
        except (remote.Unusable, Unroutable, OSError, TimeoutError) as error:
            log.warning("cannot discover what %s serves: %s", extension.name, error)
            self._enter(where, _stale(extension.version))
            return False
        extension.asked_at = now
        self._enter(where, _current(extension.version, resources))
        if extension.reading is None or extension.reading.done():
            reading = self.documents.refresh(where, extension.backend)
            extension.reading = self._tasks.spawn(reading, f"documents of {extension.name}")
        return True


def _stale(version: str) -> Document:
    return {"version": version, "freshness": "Stale"}


def _current(version: str, resources: list[Object]) -> Document:
    return {"version": version, "resources": resources, "freshness": "Current"}
