"""Events of events.k8s.io/v1, as the scheduler writes them: what happened, what was being done, and series of repeats.

Owns `SeriesRecorder`. Callers say what happened and go on. Of what happens again to the same version of an object the
second time is written as a series, later ones are only counted, and the count is written when the series has ended;
whatever else happens is an event of its own. One is written after the other, several at once only where many wait; what
is said of one object is written in order. Source: client-go's tools/events (the elder form, which all other
components write, is `events.py`'s).
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from steersman.api.errors import ApiError
from steersman.api.resource import Object, Resource
from steersman.client.client import Client
from steersman.client.events import EventType, event_name, reference
from steersman.lib.clock import Clock, rfc3339_micro
from steersman.lib.tasks import Tasks

log = logging.getLogger(__name__)

EVENTS = Resource("events.k8s.io", "v1", "events", "Event")
_REMEMBERED = 4096  # events that a series could be made of
_WAITING = 10_000  # events not yet written; more are dropped
_EACH, _MOST = 2500, 4  # so many that wait have a writer: what happens comes before its telling
_NOTE = 1024  # characters
_CUT = " ..."
_FINISH = 360.0  # seconds after which nothing more is expected of a series
_REFRESH = 1800.0  # seconds between two writes of a series that goes on
_KEEPER = "keeper"
_TRIES, _PAUSE = 12, 10.0  # while the API server is not there


@dataclass(slots=True)
class _Known:
    """An event that was said: how often, when last, and when that was written."""

    body: Object
    last: float
    count: int = 1
    written: float = 0.0


@dataclass(frozen=True, slots=True)
class _Said:
    """One thing to write: the event, or how often it happened, when last."""

    body: Object
    count: int
    last: float

    @property
    def about(self) -> tuple[str | None, ...]:
        """Whose story it is, which is written in the order in which it was told."""
        regarding = self.body["regarding"]
        return regarding.get("uid"), regarding.get("namespace"), regarding.get("name")


class SeriesRecorder:
    """Records events as one controller of a host, such as `default-scheduler`."""

    def __init__(self, client: Client, clock: Clock, tasks: Tasks, *, controller: str, host: str) -> None:
        self._client = client
        self._clock = clock
        self._tasks = tasks
        self._controller = controller
        self._host = host
        self._queue: deque[_Said] = deque()
        self._known: OrderedDict[tuple[object, ...], _Known] = OrderedDict()
        self._busy: dict[tuple[str | None, ...], deque[_Said]] = {}  # what is said of those of whom one writes
        self._running: dict[str, asyncio.Task[None]] = {}  # writers and keeper, shared with those that `named` made

    def named(self, controller: str) -> SeriesRecorder:
        """A recorder for another controller of this process, with the same queue and memory."""
        other = copy.copy(self)
        other._controller = controller
        return other

    def event(
        self, regarding: Object, type: EventType, reason: str, action: str, note: str, related: Object | None = None
    ) -> None:
        """Something happened to `regarding` while `action` was done, because of `related` where there is one."""
        about, other = (
            reference(regarding, versioned=True),
            None if related is None else reference(related, versioned=True),
        )
        instance = f"{self._controller}-{self._host}"
        key = (type, action, reason, instance, *about.items(), None, *(other or {}).items())
        now = self._clock.now()
        known = self._known.get(key)
        if known is not None:
            known.count += 1
            known.last = now
            if known.count == 2:
                self._put(known, now)
            return
        body: Object = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {
                "name": event_name(
                    about.get("name", ""), now, f"{instance} {about.get('resourceVersion')} {reason} {note}"
                ),
                "namespace": about.get("namespace") or "default",
            },
            "eventTime": rfc3339_micro(now),
            "reportingController": self._controller,
            "reportingInstance": instance,
            "action": action,
            "reason": reason,
            "regarding": about,
            "note": note if len(note) <= _NOTE else note[: _NOTE - len(_CUT)] + _CUT,
            "type": type,
        }
        if other is not None:
            body["related"] = other
        known = self._known[key] = _Known(body, now)
        self._put(known, now)
        if len(self._known) > _REMEMBERED:
            self._end(self._known.popitem(last=False)[1], now)
        self._run(_KEEPER, self._keep)

    def _run(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        running = self._running.get(name)
        if running is None or running.done():
            self._running[name] = self._tasks.spawn(work(), f"event {name}")

    def _put(self, known: _Known, now: float) -> None:
        """Have an event written, or how often it has happened."""
        if len(self._queue) >= _WAITING:
            log.warning("dropped event %s of %s: too many wait", known.body["reason"], known.body["regarding"]["name"])
            return
        known.written = now
        self._queue.append(_Said(known.body, known.count, known.last))
        for number in range(min(_MOST, -(-len(self._queue) // _EACH))):
            self._run(f"writer {number}", lambda number=number: self._write_all(number * _EACH))

    def _end(self, known: _Known, now: float) -> None:
        """Nothing more is expected: the last count is written, if there was a series."""
        if known.count > 1:
            self._put(known, now)

    async def _keep(self) -> None:
        """End series, and write those that go on now and then, while any are known."""
        while self._known:
            await self._clock.sleep(_FINISH)
            now = self._clock.now()
            for key, known in list(self._known.items()):
                if known.last < now - _FINISH:
                    del self._known[key]
                    self._end(known, now)
                elif known.count > 1 and known.written <= now - _REFRESH:
                    self._put(known, now)

    async def _write_all(self, enough: int) -> None:
        """Write until no more wait than is enough for others, then end; the next event starts a new task."""
        while len(self._queue) > enough:
            said = self._queue.popleft()
            if (after := self._busy.get(said.about)) is not None:
                after.append(said)
                continue
            after = self._busy[said.about] = deque([said])
            try:
                while after:
                    await self._insist(after.popleft())
            finally:
                del self._busy[said.about]

    async def _insist(self, said: _Said) -> None:
        for _ in range(_TRIES):
            try:
                await self._write(said.body, said.count, said.last)
            except ApiError as error:
                log.info("cannot write event %s: %s", said.body["reason"], error)
            except (OSError, TimeoutError):
                await self._clock.sleep(_PAUSE)
                continue
            return

    async def _write(self, body: Object, count: int, last: float) -> None:
        name, namespace = body["metadata"]["name"], body["metadata"]["namespace"]
        if count == 1:
            await self._client.post(EVENTS, body, namespace)
            return
        series = {"series": {"count": count, "lastObservedTime": rfc3339_micro(last)}}
        try:
            await self._client.patch(EVENTS, name, namespace, series, type="strategic", quiet=True)
        except ApiError as error:
            if error.code != 404:
                raise
            await self._client.post(EVENTS, {**body, **series}, namespace)

    async def flush(self) -> None:
        """Wait until everything said so far is written or dropped."""
        writers = [task for name, task in self._running.items() if name != _KEEPER]
        await asyncio.gather(*writers, return_exceptions=True)
