"""Events: what happened to an object, for people to read.

Owns aggregation and the writing of core/v1 Events. Callers say what happened and go on; writing is a task of its own,
and an event that cannot be written is dropped. Source: client-go's tools/record (EventCorrelator).
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from steersman.api.errors import ApiError
from steersman.api.resource import EVENTS, Object
from steersman.client.client import Client
from steersman.lib.clock import Clock, rfc3339
from steersman.lib.tasks import Tasks

log = logging.getLogger(__name__)

EventType = Literal["Normal", "Warning"]

_REMEMBERED = 4096  # events whose repetition is counted rather than written anew
_WAITING = 1000  # events not yet written; more are dropped
_MESSAGE = 1024  # characters
_SIMILAR = 10  # events alike but for their message, within _WINDOW, before they are merged
_WINDOW = 600.0  # seconds
_BURST, _REFILL = 25.0, 1 / 300  # per object and source: so many at once, then one in five minutes


@dataclass(slots=True)
class _Known:
    """An event that was written: its name and how often it happened."""

    name: str
    count: int
    first: str


@dataclass(slots=True)
class _Group:
    """Events alike but for their messages."""

    messages: set[str]
    last: float


class EventRecorder:
    """Records events as one component, such as `kubelet` on a host."""

    def __init__(self, client: Client, clock: Clock, tasks: Tasks, *, component: str, host: str = "") -> None:
        self._client = client
        self._clock = clock
        self._tasks = tasks
        self._component = component
        self._host = host
        self._queue: asyncio.Queue[tuple[str, Object]] = asyncio.Queue(_WAITING)
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._groups: OrderedDict[str, _Group] = OrderedDict()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._writing: list[asyncio.Task[None]] = []  # the one writer, shared with those that `named` made

    def named(self, component: str) -> EventRecorder:
        """A recorder for another component of this process, with the same queue and memory."""
        other = copy.copy(self)
        other._component = component
        return other

    def event(self, regarding: Object, type: EventType, reason: str, message: str) -> None:
        """Something happened to `regarding`, which may be an object or an object reference."""
        involved = reference(regarding)
        now = self._clock.now()
        if not self._allowed(involved, now):
            return
        if self._queue.full():
            log.warning("dropped event %s of %s: too many wait", reason, involved.get("name"))
            return
        message = message[:_MESSAGE]
        source = {"component": self._component} | ({"host": self._host} if self._host else {})
        stamp = rfc3339(now)
        key, message, combined = self._correlated(involved, type, reason, message, now)
        body: Object = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"namespace": involved.get("namespace") or "default"},
            "involvedObject": reference(regarding, versioned=True),
            "reason": reason,
            "message": message,
            "source": source,
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
            "type": type,
            "reportingComponent": "" if combined else self._component,
            "reportingInstance": "" if combined else self._host,
        }
        body["metadata"]["name"] = event_name(involved.get("name", ""), now, key)
        self._queue.put_nowait((key, body))
        if not self._writing or self._writing[0].done():
            self._writing[:] = [self._tasks.spawn(self._write_all(), "event recorder")]

    def _allowed(self, involved: Object, now: float) -> bool:
        """A token bucket per object, so that one broken object cannot flood the API."""
        key = "\0".join([self._component, *(str(involved.get(part)) for part in ("kind", "namespace", "name", "uid"))])
        tokens, at = self._buckets.pop(key, (_BURST, now))
        tokens = min(_BURST, tokens + (now - at) * _REFILL)
        self._buckets[key] = (tokens - 1 if tokens >= 1 else tokens, now)
        if len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        return tokens >= 1

    def _correlated(self, involved: Object, type: str, reason: str, message: str, now: float) -> tuple[str, str, bool]:
        """The key under which repetitions are counted, the text, and whether many messages became one event."""
        key = "\0".join(map(str, (self._component, *sorted(involved.items()), type, reason)))
        group = self._groups.pop(key, None)
        if group is None or now - group.last > _WINDOW:
            group = _Group(set(), now)
        group.last = now
        group.messages.add(message)
        self._groups[key] = group
        if len(self._groups) > _REMEMBERED:
            self._groups.popitem(last=False)
        if len(group.messages) < _SIMILAR:
            return f"{key}\0{message}", message, False
        group.messages.pop()  # the number is enough
        return key, f"(combined from similar events): {message}"[:_MESSAGE], True

    async def _write_all(self) -> None:
        """Write what waits, then end; the next event starts a new task."""
        while not self._queue.empty():
            key, body = self._queue.get_nowait()
            try:
                await self._write(key, body)
            except (ApiError, OSError, TimeoutError) as error:
                log.info("cannot write event %s: %s", body["reason"], error)

    async def _write(self, key: str, body: Object) -> None:
        namespace = body["metadata"]["namespace"]
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            known.count += 1
            patch = {"count": known.count, "lastTimestamp": body["lastTimestamp"], "message": body["message"]}
            try:
                await self._client.patch(EVENTS, known.name, namespace, patch, type="strategic", quiet=True)
            except ApiError as error:
                if error.code != 404:
                    raise
                known.count = 1
            else:
                return
        await self._client.post(EVENTS, body, namespace)
        self._known[key] = _Known(body["metadata"]["name"], 1, body["firstTimestamp"])
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    async def flush(self) -> None:
        """Wait until everything said so far is written or dropped."""
        await asyncio.gather(*self._writing, return_exceptions=True)


def reference(regarding: Object, *, versioned: bool = False) -> Object:
    """An ObjectReference to an object, `versioned` with its resourceVersion; a reference is its own."""
    meta = regarding.get("metadata")
    if meta is None:
        return {key: value for key, value in regarding.items() if value}
    reference = {
        "kind": regarding.get("kind", ""),
        "namespace": meta.get("namespace", ""),
        "name": meta.get("name", ""),
        "uid": meta.get("uid", ""),
        "apiVersion": regarding.get("apiVersion", ""),
        "resourceVersion": meta.get("resourceVersion", "") if versioned else "",
    }
    return {key: value for key, value in reference.items() if value}


def event_name(name: str, now: float, key: str) -> str:
    """client-go's `name.hexnanoseconds`; the key's hash keeps events of one instant apart."""
    salt = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=3).digest())
    return f"{name}.{int(now * 1e9) + salt:x}"
