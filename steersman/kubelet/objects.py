"""ConfigMaps and Secrets that pods of this node use, kept up to date by one watch each while somebody uses them.

Owns the cache and its watches; a node may read only what its pods name, so there is no list of everything. Called by
`worker` and the volume types. Source: behaviour of the original's watch-based ConfigMap and Secret managers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from steersman.api.errors import ApiError
from steersman.api.resource import Object, Resource
from steersman.lib.tasks import Tasks

if TYPE_CHECKING:
    from steersman.client.client import Client
    from steersman.lib.clock import Clock

Key = tuple[str, str, str]
"""(plural, namespace, name)."""

_RETRY_FIRST, _RETRY_LONGEST = 1.0, 30.0
_SHORT_WATCH = 1.0  # seconds; a server that ends watches at once is not asked faster than this


class _Watched:
    """One object under watch. `value` is None while it does not exist."""

    def __init__(self) -> None:
        self.value: Object | None = None
        self.error: ApiError | OSError | None = None
        self.known = asyncio.Event()
        self.users: set[str] = set()
        self.task: asyncio.Task[None] | None = None


class ObjectSource:
    """Objects by key, for as long as a pod uses them."""

    def __init__(
        self, client: Client, *, clock: Clock, tasks: Tasks, changed: Callable[[set[str]], None] = lambda _: None
    ) -> None:
        """`changed` is called with the uids of the pods that use an object whenever it changes after its first read."""
        self._client = client
        self._clock = clock
        self._tasks = tasks
        self._changed = changed
        self._watched: dict[Key, _Watched] = {}
        self._by_user: dict[str, set[Key]] = {}

    def for_pod(self, uid: str) -> PodObjects:
        """The view through which one pod reads; what it reads stays watched until `release`."""
        return PodObjects(self, uid)

    def release(self, uid: str) -> None:
        """A pod is gone: stop watching what only it used."""
        for key in self._by_user.pop(uid, ()):
            watched = self._watched[key]
            watched.users.discard(uid)
            if not watched.users:
                del self._watched[key]
                if watched.task is not None:
                    watched.task.cancel()

    async def get(self, uid: str, resource: Resource, namespace: str, name: str) -> Object | None:
        """The object, or None. Raises ApiError or OSError when it was never read and can not be read now."""
        key = (resource.plural, namespace, name)
        watched = self._watched.get(key)
        if watched is None:
            watched = self._watched[key] = _Watched()
            watched.task = self._tasks.spawn(self._follow(resource, key, watched), f"watch {'/'.join(key)}")
        watched.users.add(uid)
        self._by_user.setdefault(uid, set()).add(key)
        await watched.known.wait()
        if watched.error is not None:
            raise watched.error
        return watched.value

    async def _follow(self, resource: Resource, key: Key, watched: _Watched) -> None:
        retry = _RETRY_FIRST
        fields = f"metadata.name={key[2]}"
        while True:
            try:
                page = await self._client.list(resource, key[1], fields=fields)
                self._set(watched, page.items[0] if page.items else None)
                retry = _RETRY_FIRST
                version = page.resource_version
                while not (watched.value or {}).get("immutable"):
                    began = self._clock.monotonic()
                    version = await self._watch(resource, key[1], fields, version, watched)
                    if self._clock.monotonic() - began < _SHORT_WATCH:
                        await self._clock.sleep(_SHORT_WATCH)
                return
            except (ApiError, OSError) as error:
                if not watched.known.is_set():
                    watched.error = error
                    watched.known.set()
                expired = isinstance(error, ApiError) and error.code == 410
                if not expired:
                    await self._clock.sleep(retry)
                    retry = min(retry * 2, _RETRY_LONGEST)

    async def _watch(self, resource: Resource, namespace: str, fields: str, version: str, watched: _Watched) -> str:
        events = self._client.watch(resource, namespace, resource_version=version, fields=fields)
        async with aclosing(events):  # type: ignore[type-var]
            async for event in events:
                version = event.object["metadata"]["resourceVersion"]
                if event.type == "DELETED":
                    self._set(watched, None)
                elif event.type in ("ADDED", "MODIFIED"):
                    self._set(watched, event.object)
        return version

    def _set(self, watched: _Watched, value: Object | None) -> None:
        before, first = watched.value, not watched.known.is_set() or watched.error is not None
        watched.value, watched.error = value, None
        watched.known.set()
        if not first and _version(before) != _version(value):
            self._changed(set(watched.users))


def _version(value: Object | None) -> str:
    return "" if value is None else str(value["metadata"].get("resourceVersion", ""))


class Fetched:
    """Objects by one GET each time (`volumes.context.Getter`)."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """The object, or None when there is none. Raises ApiError or OSError."""
        try:
            return await self._client.get(resource, name, namespace)
        except ApiError as error:
            if error.code != 404:
                raise
            return None


class PodObjects:
    """Objects as one pod reads them (`volumes.context.Getter`)."""

    def __init__(self, source: ObjectSource, uid: str) -> None:
        self._source = source
        self._uid = uid

    async def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """The object, or None when there is none. Raises ApiError or OSError."""
        return await self._source.get(self._uid, resource, namespace, name)
