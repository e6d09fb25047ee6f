"""A client for tests that do not await: objects as dicts or YAML, kinds by the names that kubectl takes.

Owns `SyncClient`, which runs an async `Client` on an event loop in another thread, and `LoopThread`, that thread.
Called by the pytest plugin. It waits on watches, never by polling.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop
import yaml

from steersman.api.errors import ApiError
from steersman.api.resource import Object, Resource
from steersman.client.client import Client, PatchType
from steersman.client.discovery import groups

T = TypeVar("T")

_CALL = 30.0  # seconds that one call may take
_CRD = "CustomResourceDefinition"


_Kinds = list[tuple[Resource, frozenset[str]]]
_Seen = list[Object | None]  # one place: what a wait saw last


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="steersman", daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T], timeout: float = _CALL) -> T:
        """Run `work` there and wait for it. Raises what it raises, TimeoutError after `timeout` seconds."""
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, timeout), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Stop the loop and wait for the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class SyncClient:
    """Calls an API server and waits. Every call raises ApiError for a Status (its `reason` says which)."""

    def __init__(self, thread: LoopThread, client: Client) -> None:
        self._thread = thread
        self._client = client
        self._kinds: _Kinds = []  # preferred versions first

    def create(self, manifest: Object | str, namespace: str = "") -> Object:
        """Create an object, given as a dict or as YAML of one document."""
        obj = _one(manifest)
        resource = self._of(obj)
        return self._run(self._client.create(resource, obj, _namespace(resource, obj, namespace)))

    def apply(self, manifests: Object | str, namespace: str = "") -> list[Object]:
        """Server-side apply of every document, in order. A CustomResourceDefinition is waited for until it serves."""
        applied = []
        for obj in _several(manifests):
            resource, name = self._of(obj), obj["metadata"]["name"]
            where = _namespace(resource, obj, namespace)
            applied.append(
                self._run(
                    self._client.patch(resource, name, where, obj, type="apply", field_manager="pytest", force=True)
                )
            )
            if obj["kind"] == _CRD:
                self.wait(_CRD, name, condition("Established"))
                self._kinds = []
        return applied

    def get(self, kind: str, name: str, namespace: str = "default") -> Object:
        """One object. `kind` as kubectl takes it: Deployment, deployments, deploy, deployments.apps."""
        resource = self._named(kind)
        return self._run(self._client.get(resource, name, namespace if resource.namespaced else ""))

    def list(self, kind: str, namespace: str = "", *, labels: str = "", fields: str = "") -> list[Object]:
        """The objects of a namespace, or of all."""
        found = self._run(self._client.list(self._named(kind), namespace, labels=labels, fields=fields))
        return found.items

    def update(self, obj: Object) -> Object:
        """Replace an object; its resourceVersion, when set, must be the current one."""
        return self._run(self._client.update(self._of(obj), obj))

    def update_status(self, obj: Object) -> Object:
        """Replace an object's status."""
        return self._run(self._client.update(self._of(obj), obj, subresource="status"))

    def patch(
        self, kind: str, name: str, body: Any, namespace: str = "default", *, type: PatchType = "merge"
    ) -> Object:
        """Change an object by a merge, json or strategic patch."""
        resource = self._named(kind)
        where = namespace if resource.namespaced else ""
        return self._run(self._client.patch(resource, name, where, body, type=type))

    def delete(self, kind: str, name: str, namespace: str = "default", *, propagation: str = "") -> None:
        """Delete an object. `propagation`: Background (the default), Foreground or Orphan."""
        resource = self._named(kind)
        where = namespace if resource.namespaced else ""
        self._run(self._client.delete(resource, name, where, propagation=propagation))

    def wait(
        self,
        kind: str,
        name: str,
        check: Callable[[Object], object],
        namespace: str = "default",
        *,
        timeout: float = 10.0,
    ) -> Object:
        """Wait until the object exists and `check` holds for it; returns it. Raises TimeoutError, which shows it."""
        resource = self._named(kind)
        seen: _Seen = [None]
        work = self._until(resource, name, namespace, lambda obj: obj is not None and bool(check(obj)), seen)
        found = self._patiently(work, f"{kind} {name}", seen, timeout)
        assert found is not None
        return found

    def wait_gone(self, kind: str, name: str, namespace: str = "default", *, timeout: float = 10.0) -> None:
        """Wait until the object is gone. Raises TimeoutError, which shows it."""
        seen: _Seen = [None]
        work = self._until(self._named(kind), name, namespace, lambda obj: obj is None, seen)
        self._patiently(work, f"the end of {kind} {name}", seen, timeout)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._thread.call(work)

    def _patiently(self, work: Coroutine[Any, Any, T], what: str, seen: _Seen, timeout: float) -> T:
        try:
            return self._thread.call(work, timeout)
        except TimeoutError:
            last = "it does not exist" if seen[0] is None else yaml.safe_dump(seen[0], sort_keys=False)
            raise TimeoutError(f"waited {timeout:g} s for {what}; last seen:\n{last}") from None

    async def _until(
        self,
        resource: Resource,
        name: str,
        namespace: str,
        check: Callable[[Object | None], bool],
        seen: _Seen,
    ) -> Object | None:
        where, fields = namespace if resource.namespaced else "", f"metadata.name={name}"
        while True:
            page = await self._client.list(resource, where, fields=fields)
            seen[0] = page.items[0] if page.items else None
            if check(seen[0]):
                return seen[0]
            events = self._client.watch(resource, where, resource_version=page.resource_version, fields=fields)
            try:
                async for event in events:
                    if event.type in ("ADDED", "MODIFIED", "DELETED"):
                        seen[0] = None if event.type == "DELETED" else event.object
                        if check(seen[0]):
                            return seen[0]
            except ApiError as error:
                if error.code != 410:
                    raise
            finally:
                await events.aclose()

    def _of(self, obj: Object) -> Resource:
        """The resource of a manifest."""
        group, _, version = str(obj.get("apiVersion", "")).rpartition("/")
        wanted = (group, version, obj.get("kind"))
        for _ in range(2):
            for resource, _names in self._known():
                if (resource.group, resource.version, resource.kind) == wanted:
                    return resource
            self._kinds = []
        raise LookupError(f'no matches for kind "{obj.get("kind")}" in version "{obj.get("apiVersion")}"')

    def _named(self, kind: str) -> Resource:
        """The resource that kubectl would mean."""
        word, _, group = kind.lower().partition(".")
        for _ in range(2):
            for resource, names in self._known():
                if word in names and (not group or resource.group == group):
                    return resource
            self._kinds = []
        raise LookupError(f'the server doesn\'t have a resource type "{kind}"')

    def _known(self) -> _Kinds:
        if not self._kinds:
            self._kinds = self._run(self._discover())
        return self._kinds

    async def _discover(self) -> _Kinds:
        return [
            _resource(group, version, item)
            for group in await groups(self._client)
            for version in group["versions"]
            for item in version["resources"]
        ]


def _resource(group: Object, version: Object, item: Object) -> tuple[Resource, frozenset[str]]:
    name, kind = item["resource"], item["responseKind"]["kind"]
    names = {name, kind.lower(), item.get("singularResource", ""), *item.get("shortNames", ())} - {""}
    namespaced = item["scope"] == "Namespaced"
    return Resource(group["metadata"].get("name", ""), version["version"], name, kind, namespaced), frozenset(names)


def _several(manifests: Object | str) -> list[Object]:
    documents = yaml.safe_load_all(manifests) if isinstance(manifests, str) else [manifests]
    return [document for document in documents if document]


def _one(manifest: Object | str) -> Object:
    documents = _several(manifest)
    if len(documents) != 1:
        raise ValueError(f"one document is wanted, {len(documents)} are there")
    return documents[0]


def _namespace(resource: Resource, obj: Object, namespace: str) -> str:
    if not resource.namespaced:
        return ""
    return namespace or (obj.get("metadata") or {}).get("namespace") or "default"


def condition(type: str, status: str = "True") -> Callable[[Object], bool]:
    """A check for `wait`: the object's condition `type` has this status."""

    def check(obj: Object) -> bool:
        found = (obj.get("status") or {}).get("conditions") or ()
        return any(one["type"] == type and one["status"] == status for one in found)

    return check
