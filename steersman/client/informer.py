"""A local copy of a collection, kept current by list and watch.

Owns `Informer` (one collection) and `Informers` (shared by everybody in a process). Handlers run on the loop, in the
order of events; objects are read-only by rule, which `verify` checks in tests. managedFields are not kept: nobody here
reads them. Called by controllers, scheduler, kubelet, proxy and DNS. Source: client-go's reflector and shared informer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from random import Random
from typing import Any, TypedDict

import msgspec

from steersman.api.errors import ApiError
from steersman.api.resource import Object, Resource
from steersman.client.client import Client, Decode
from steersman.lib.clock import Clock
from steersman.lib.tasks import Tasks

log = logging.getLogger(__name__)

Handler = Callable[[Object | None, Object | None], None]
"""Told of (old, new): old None for a new object, new None for one that is gone."""
Index = Callable[[Object], Iterable[str]]
Objects = list[Object]

_PAGE = 500
_BACKOFF_FIRST, _BACKOFF_MOST = 0.2, 30.0  # seconds
_LOCAL = 86_400  # seconds that a watch lasts
_STEADY = 5.0  # seconds: a watch that lasted this long was a success
_encode = msgspec.json.Encoder(order="deterministic").encode


class Meta(TypedDict, total=False):
    """An object's metadata without managedFields, for decoders."""

    name: Any
    namespace: Any
    uid: Any
    labels: Any
    resourceVersion: Any
    creationTimestamp: Any
    deletionTimestamp: Any
    generation: Any
    generateName: Any
    annotations: Any
    ownerReferences: Any
    finalizers: Any
    deletionGracePeriodSeconds: Any


class _Described(TypedDict):
    metadata: Meta


_described = msgspec.json.Decoder(_Described).decode


def _decode_metadata(body: bytes | memoryview) -> Object:
    found: Any = _described(body)
    return found


class Informer:
    """One collection. Reads are immediate; `synced` waits for the first whole copy."""

    def __init__(
        self,
        client: Client,
        resource: Resource,
        *,
        clock: Clock,
        namespace: str = "",
        fields: str = "",
        labels: str = "",
        metadata_only: bool = False,
        decode: Decode | None = None,
        random: Random | None = None,
        detect_mutation: bool = False,
    ) -> None:
        """`metadata_only`: objects have nothing but metadata; `detect_mutation`: remember them for `verify`.

        `decode` reads of an object what is to be kept, where that is less than all.
        """
        self.resource = resource
        self._client = client
        self._clock = clock
        self._namespace, self._fields, self._labels = namespace, fields, labels
        self._metadata_only = metadata_only
        self._decode = _decode_metadata if metadata_only else decode
        self._sealed: dict[tuple[str, str], bytes] | None = {} if detect_mutation else None
        self._objects: dict[tuple[str, str], Object] = {}
        self._spaces: dict[str, dict[str, Object]] = {}
        self._indexes: dict[str, tuple[Index, dict[str, dict[tuple[str, str], Object]]]] = {}
        self._handlers: list[Handler] = []
        self._relisted: list[Callable[[], None]] = []
        self._synced = asyncio.Event()
        self._settled = asyncio.Event()
        self._version = ""
        self._absent = False
        self._random = random or Random()  # jitter only

    def get(self, namespace: str, name: str) -> Object | None:
        """One object; the namespace of a cluster-scoped one is ""."""
        return self._objects.get((namespace, name))

    def list(self, namespace: str | None = None) -> Objects:
        """Every object, or those of one namespace."""
        if namespace is None:
            return list(self._objects.values())
        return list(self._spaces.get(namespace, {}).values())

    def add_index(self, name: str, keys: Index) -> None:
        """Keep objects findable by what `keys` says of them; again with the same name is harmless."""
        if name not in self._indexes:
            self._indexes[name] = (keys, {})
            for at, obj in self._objects.items():
                self._file(name, at, None, obj)

    def by_index(self, name: str, key: str) -> Objects:
        """Objects filed under a key. Raises KeyError for an index that was never added."""
        return list(self._indexes[name][1].get(key, {}).values())

    def count(self, name: str, key: str) -> int:
        """How many objects are filed under a key. Raises KeyError for an index that was never added."""
        return len(self._indexes[name][1].get(key, ()))

    def add_handler(self, handler: Handler) -> None:
        """Tell `handler` of every change from now on, and first of everything that is there."""
        self._handlers.append(handler)
        for obj in list(self._objects.values()):
            self._tell(handler, None, obj)

    def on_relist(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the collection was read again: of what came and went meanwhile no handler is told."""
        self._relisted.append(callback)

    async def synced(self) -> None:
        """Wait until the collection has been read once."""
        await self._synced.wait()

    async def settled(self) -> None:
        """Wait until the collection has been read once, or the API server has said that it has none such."""
        await self._settled.wait()

    @property
    def version(self) -> int:
        """The resourceVersion up to which everything is known; 0 before the first list."""
        return int(self._version) if self._version.isdecimal() else 0

    @property
    def has_synced(self) -> bool:
        """Whether the collection has been read once."""
        return self._synced.is_set()

    async def run(self) -> None:
        """Keep the copy current until cancelled."""
        delay = _BACKOFF_FIRST
        while True:
            began = self._clock.monotonic()
            try:
                if not self._version:
                    await self._relist()
                await self._follow()
                if self._clock.monotonic() - began > _STEADY:
                    delay = _BACKOFF_FIRST
                    continue
            except ApiError as error:
                if error.code == 410:
                    self._version = ""
                    if self._clock.monotonic() - began > _STEADY:
                        continue
                elif (
                    error.code != 404 or not self._absent
                ):  # a release may lack it: said once, asked for again and again
                    log.warning("cannot follow %s: %s", self.resource.plural, error)
                    self._absent = error.code == 404
                    if self._absent:
                        self._settled.set()
            except (OSError, TimeoutError) as error:
                log.info("lost the watch of %s: %s", self.resource.plural, error)
            if self._clock.monotonic() - began > _STEADY:
                delay = _BACKOFF_FIRST
            await self._clock.sleep(delay * (1 + self._random.random()) / 2)
            delay = min(delay * 2, _BACKOFF_MOST)

    async def _relist(self) -> None:
        """Read everything, then tell the difference."""
        found: dict[tuple[str, str], Object] = {}
        continue_ = ""
        while True:
            page = await self._client.list(
                self.resource,
                self._namespace,
                labels=self._labels,
                fields=self._fields,
                limit=_PAGE,
                continue_=continue_,
                metadata_only=self._metadata_only,
                decode=self._decode,
            )
            found |= {_key(obj): self._lean(obj) for obj in page.items}
            continue_ = page.continue_
            if not continue_:
                break
        for at in [at for at in self._objects if at not in found]:
            self._put(at, None)
        for at, obj in found.items():
            old = self._objects.get(at)
            if old is None or _version(old) != _version(obj):
                self._put(at, obj)
        self._version = page.resource_version
        self._absent = False
        for callback in self._relisted if self._synced.is_set() else ():
            callback()
        self._synced.set()
        self._settled.set()

    async def _follow(self) -> None:
        """Watch until the server ends it."""
        local = self._client.local  # then nothing is won by asking anew, and an idle watch costs nothing
        seconds = _LOCAL if local else 300 + self._random.randrange(300)
        events = self._client.watch(
            self.resource,
            self._namespace,
            resource_version=self._version,
            labels=self._labels,
            fields=self._fields,
            timeout_seconds=seconds,
            bookmarks=not local,
            metadata_only=self._metadata_only,
            decode=self._decode,
        )
        async for event in events:
            self._version = _version(event.object) or self._version
            if event.type in ("ADDED", "MODIFIED"):
                self._put(_key(event.object), self._lean(event.object))
            elif event.type == "DELETED":
                self._put(_key(event.object), None)

    def _lean(self, obj: Object) -> Object:
        """The object as it is kept."""
        if self._decode is not None and not self._metadata_only:
            return obj
        obj["metadata"].pop("managedFields", None)
        if self._metadata_only:
            return {
                "apiVersion": self.resource.api_version,
                "kind": self.resource.kind,
                "metadata": obj["metadata"],
            }
        return obj

    def verify(self) -> None:
        """Raises RuntimeError when an object was changed by a reader; needs `detect_mutation`."""
        for at, sealed in (self._sealed or {}).items():
            if _encode(self._objects[at]) != sealed:
                raise RuntimeError(f"{self.resource.plural} {'/'.join(at)} was changed by a reader of the informer")

    def _put(self, at: tuple[str, str], new: Object | None) -> None:
        old = self._objects.get(at)
        if self._sealed is not None:
            self.verify()
            self._sealed.pop(at, None)
            if new is not None:
                self._sealed[at] = _encode(new)
        space = self._spaces.setdefault(at[0], {})
        if new is None:
            if old is None:
                return
            del self._objects[at], space[at[1]]
            if not space:
                del self._spaces[at[0]]
        else:
            self._objects[at] = space[at[1]] = new
        for name in self._indexes:
            self._file(name, at, old, new)
        if old is not None and new is not None and old["metadata"].get("uid") != new["metadata"].get("uid"):
            self._tell_all(old, None)
            self._tell_all(None, new)
        else:
            self._tell_all(old, new)

    def _file(self, name: str, at: tuple[str, str], old: Object | None, new: Object | None) -> None:
        keys, filed = self._indexes[name]
        for key in keys(old) if old is not None else ():
            filed.get(key, {}).pop(at, None)
            if not filed.get(key):
                filed.pop(key, None)
        for key in keys(new) if new is not None else ():
            filed.setdefault(key, {})[at] = new  # type: ignore[assignment]

    def _tell_all(self, old: Object | None, new: Object | None) -> None:
        for handler in self._handlers:
            self._tell(handler, old, new)

    def _tell(self, handler: Handler, old: Object | None, new: Object | None) -> None:
        try:
            handler(old, new)
        except Exception:
            log.exception("a handler of %s failed", self.resource.plural)


class Informers:
    """One informer per collection, shared. Informers start when they are first asked for."""

    def __init__(
        self,
        client: Client,
        *,
        clock: Clock,
        tasks: Tasks,
        random: Random | None = None,
        detect_mutation: bool = False,
    ) -> None:
        self._client = client
        self._clock = clock
        self._tasks = tasks
        self._random = random or Random()
        self._detect_mutation = detect_mutation
        self._informers: dict[
            tuple[Resource, str, str, str, bool, Decode | None], tuple[Informer, asyncio.Task[None]]
        ] = {}

    def informer(
        self,
        resource: Resource,
        *,
        namespace: str = "",
        fields: str = "",
        labels: str = "",
        metadata_only: bool = False,
        decode: Decode | None = None,
    ) -> Informer:
        """The informer of a collection, started. With `metadata_only`, one that has whole objects serves as well."""
        if metadata_only and (resource, namespace, fields, labels, False, None) in self._informers:
            metadata_only = False
        key = (resource, namespace, fields, labels, metadata_only, decode)
        if key not in self._informers:
            made = Informer(
                self._client,
                resource,
                clock=self._clock,
                namespace=namespace,
                fields=fields,
                labels=labels,
                metadata_only=metadata_only,
                decode=decode,
                random=self._random,
                detect_mutation=self._detect_mutation,
            )
            self._informers[key] = made, self._tasks.spawn(made.run(), f"informer {resource.plural}")
        return self._informers[key][0]

    def forget(self, informer: Informer) -> None:
        """Stop an informer: its resource is gone. Whoever else uses it reads its last state for ever."""
        for key, (known, task) in list(self._informers.items()):
            if known is informer:
                task.cancel()
                del self._informers[key]

    async def synced(self) -> None:
        """Wait until every informer so far has been read once."""
        for informer, _ in list(self._informers.values()):
            await informer.synced()

    def verify(self) -> None:
        """Raises RuntimeError when a reader changed an object; needs `detect_mutation`."""
        for informer, _ in self._informers.values():
            informer.verify()


def _key(obj: Object) -> tuple[str, str]:
    meta = obj["metadata"]
    return meta.get("namespace") or "", meta["name"]


def _version(obj: Object) -> str:
    return str(obj["metadata"].get("resourceVersion") or "")
