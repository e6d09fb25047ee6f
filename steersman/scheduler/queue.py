"""Pods that wait for a node: ready to try, backing off, or parked until something happens that may help them.

Owns the order (priority, then age) and when a pod that did not fit is tried again: a parked pod is filed under the
plugins that refused it, and an event is shown only to the hints of plugins that care for its kind. Nothing here looks
at every pod when one thing happens. It knows no plugin. Source: kube-scheduler's scheduling queue (KEP-4247).
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter, deque
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field

from steersman.lib.clock import Clock
from steersman.scheduler.framework import Event, Kind
from steersman.scheduler.podinfo import PodInfo

PARKED_MOST = 300.0  # seconds after which a pod is tried again whatever happened
_FAILURE = "ScheduleAttemptFailure"
ANYTHING = ""  # where pods are parked that any event may help

Asked = Callable[[PodInfo, str, Event], bool]
"""Whether an event may help a pod that this plugin refused."""
Alike = Callable[[PodInfo, str], Hashable]
"""Equal for pods of which a plugin's hints say the same, but for those nominated where the event is; None: no other."""


@dataclass(slots=True)
class _Waiting:
    info: PodInfo
    attempts: int = 0
    due: float = 0.0  # monotonic: not before
    place: str = "active"  # active, backoff, parked, gated, popped
    moved: int = 0  # the queue's count of events when it was popped
    plugins: dict[str, Hashable] = field(default_factory=dict)  # under which it is parked, and among whom
    failed: bool = False  # its last attempt ended in an error, which no event mends
    began: float = 0.0  # monotonic: its first attempt
    flushed: bool = False  # tried again only because it had waited long


_Ticket = tuple[float, str, int, str]
"""A heap entry: order, the last of it unlike all others, and the uid. It is stale when the pod is elsewhere by now."""


class Queue:
    """One scheduler's pending pods, by uid."""

    def __init__(
        self,
        clock: Clock,
        backoff_first: float = 1.0,
        backoff_most: float = 10.0,
        *,
        interests: Mapping[str, Collection[Kind]] | None = None,
        asked: Asked = lambda info, plugin, event: True,
        alike: Alike = lambda info, plugin: None,
    ) -> None:
        """Back-offs in seconds; `interests`: the kinds of event that may help pods of each plugin, all without one."""
        self._clock = clock
        self._backoff_first, self._backoff_most = backoff_first, backoff_most
        self._interests = interests or {}
        self._asked = asked
        self._alike = alike
        self._pods: dict[str, _Waiting] = {}
        self._active: list[_Ticket] = []
        self._backoff: list[_Ticket] = []
        self._parked: dict[str, dict[Hashable, dict[str, _Waiting]]] = {}  # by plugin, with those alike, by uid
        self._oldest: deque[tuple[float, str]] = deque()  # parked pods by when they are tried again anyway
        self._count = 0
        self._events = 0
        self._wake = asyncio.Event()
        self.incoming: Counter[tuple[str, str]] = Counter()  # how often pods came to a queue, by its name and by why

    def __len__(self) -> int:
        return len(self._pods)

    def counts(self) -> dict[str, int]:
        """How many pods wait, by the original's names of queues."""
        places = Counter(waiting.place for waiting in self._pods.values())
        return {
            "active": places["active"],
            "backoff": places["backoff"],
            "unschedulable": places["parked"],
            "gated": places["gated"],
        }

    def history(self, uid: str) -> tuple[int, float, bool]:
        """How often a node was looked for, since when (monotonic), and whether at last by long waiting alone."""
        waiting = self._pods.get(uid)
        return (0, 0.0, False) if waiting is None else (waiting.attempts, waiting.began, waiting.flushed)

    def refused(self) -> Counter[tuple[str, str]]:
        """How many parked pods each plugin has refused, by plugin and profile."""
        return Counter(
            (plugin, waiting.info.scheduler)
            for plugin, parked in self._parked.items()
            if plugin != ANYTHING
            for group in parked.values()
            for waiting in group.values()
        )

    def state(self, uid: str) -> dict[str, object] | None:
        """Where a pod waits, for people; None when it does not."""
        waiting = self._pods.get(uid)
        if waiting is None:
            return None
        plugins = sorted(waiting.plugins.keys() - {ANYTHING})
        return {"place": waiting.place, "attempts": waiting.attempts, "plugins": plugins}

    def put(self, info: PodInfo) -> None:
        """Add a pod, or take note that it changed."""
        waiting = self._pods.get(info.uid)
        if waiting is None:
            waiting = self._pods[info.uid] = _Waiting(info)
            self._place(waiting, "UnschedulablePodAdd")
            return
        waiting.info = info
        if waiting.place in ("parked", "gated"):
            self._place(waiting, "UnschedulablePodUpdate")

    def _place(self, waiting: _Waiting, why: str) -> None:
        self._unpark(waiting)
        if waiting.info.gates:
            waiting.place = "gated"
            self.incoming["unschedulable", why] += 1
        elif waiting.due > self._clock.monotonic():
            waiting.place = "backoff"
            self.incoming["backoff", why] += 1
            self._count += 1
            heapq.heappush(self._backoff, (waiting.due, "", self._count, waiting.info.uid))
            self._wake.set()  # the popper's patience may be shorter now
        else:
            self._activate(waiting, why)

    def _activate(self, waiting: _Waiting, why: str) -> None:
        self._unpark(waiting)
        waiting.place = "active"
        self.incoming["active", why] += 1
        self._count += 1
        info = waiting.info
        heapq.heappush(self._active, (-info.priority, info.created, self._count, info.uid))
        self._wake.set()

    def _unpark(self, waiting: _Waiting) -> None:
        for plugin, kind in waiting.plugins.items():
            parked = self._parked[plugin]
            del parked[kind][waiting.info.uid]
            if not parked[kind]:
                del parked[kind]
            if not parked:
                del self._parked[plugin]
        waiting.plugins = {}

    def remove(self, uid: str) -> None:
        """The pod is bound or gone."""
        waiting = self._pods.pop(uid, None)
        if waiting is not None:
            self._unpark(waiting)

    def failed(self, uid: str, plugins: Collection[str] = ()) -> None:
        """The pod that was popped was refused by these plugins: park it, unless something happened meanwhile."""
        waiting = self._pods.get(uid)
        if waiting is None or waiting.place != "popped":
            return
        waiting.due = self._clock.monotonic() + self._delay(waiting)
        waiting.failed = waiting.flushed = False
        if waiting.moved != self._events:
            self._place(waiting, _FAILURE)
            return
        self.incoming["unschedulable", _FAILURE] += 1
        self._park(waiting, plugins or (ANYTHING,))

    def hold(self, uid: str, plugin: str) -> None:
        """The pod that was popped is not to be tried before something happens that this plugin waits for."""
        waiting = self._pods.get(uid)
        if waiting is not None and waiting.place == "popped":
            waiting.attempts -= 1
            self._park(waiting, [plugin])

    def _park(self, waiting: _Waiting, plugins: Collection[str]) -> None:
        uid = waiting.info.uid
        waiting.place = "parked"
        for plugin in plugins:
            kind = self._alike(waiting.info, plugin)
            waiting.plugins[plugin] = kind = uid if kind is None else kind
            self._parked.setdefault(plugin, {}).setdefault(kind, {})[uid] = waiting
        self._oldest.append((self._clock.monotonic() + PARKED_MOST, uid))

    def _delay(self, waiting: _Waiting) -> float:
        return min(self._backoff_first * 2.0 ** min(waiting.attempts - 1, 60), self._backoff_most)

    def retry(self, uid: str) -> None:
        """The pod that was popped met with an error: try again after its back-off."""
        waiting = self._pods.get(uid)
        if waiting is not None and waiting.place == "popped":
            waiting.due = self._clock.monotonic() + self._delay(waiting)
            waiting.failed = True
            self._place(waiting, _FAILURE)

    def tell(self, event: Event) -> None:
        """Something happened: parked pods that it may help get another try."""
        self._events += 1
        for plugin in list(self._parked):
            interests = self._interests.get(plugin)
            if interests is not None and event.kind not in interests:
                continue
            for group in list(self._parked.get(plugin, {}).values()):
                for waiting in self._helped(plugin, group, event):
                    self._place(waiting, event.label)

    def _helped(self, plugin: str, group: Mapping[str, _Waiting], event: Event) -> Collection[_Waiting]:
        """Whom of those alike an event may help: one is asked for all, who is awaited there for itself."""
        if plugin == ANYTHING:
            return list(group.values())
        awaited = [group[uid] for uid in event.awaited if uid in group]
        helped = [each for each in awaited if self._asked(each.info, plugin, event)]
        if len(awaited) < len(group):
            other = next(each for uid, each in group.items() if uid not in event.awaited)
            if self._asked(other.info, plugin, event):
                helped += [each for uid, each in group.items() if uid not in event.awaited]
        return helped

    async def pop(self) -> PodInfo:
        """The next pod to try; waits for one. A back-off lasts only as long as there are others to try."""
        while True:
            self._wake.clear()
            patience = self._flush()
            if (waiting := self._next()) is not None:
                waiting.place, waiting.moved = "popped", self._events
                waiting.attempts += 1
                waiting.began = waiting.began or self._clock.monotonic()
                return waiting.info
            if patience is None:
                await self._wake.wait()
            else:
                try:
                    async with asyncio.timeout(patience):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    def _next(self) -> _Waiting | None:
        while self._active:
            waiting = self._pods.get(heapq.heappop(self._active)[-1])
            if waiting is not None and waiting.place == "active":
                return waiting
        errors: list[_Ticket] = []
        found: _Waiting | None = None
        while self._backoff and found is None:
            ticket = heapq.heappop(self._backoff)
            waiting = self._backing_off(ticket)
            if waiting is not None and waiting.failed:
                errors.append(ticket)
            else:
                found = waiting
        if found is not None:
            self.incoming["active", "PopFromBackoffQ"] += 1
        for ticket in errors:
            heapq.heappush(self._backoff, ticket)
        return found

    def _backing_off(self, ticket: _Ticket) -> _Waiting | None:
        """The pod of a ticket, unless the ticket is stale."""
        waiting = self._pods.get(ticket[-1])
        return waiting if waiting is not None and (waiting.place, waiting.due) == ("backoff", ticket[0]) else None

    def _flush(self) -> float | None:
        """Activate what has waited long enough; returns the seconds until the next one has, None without any."""
        now = self._clock.monotonic()
        while self._backoff:
            waiting = self._backing_off(self._backoff[0])
            if waiting is not None and waiting.due > now:
                break
            heapq.heappop(self._backoff)
            if waiting is not None:
                self._activate(waiting, "BackoffComplete")
        while self._oldest:
            due, uid = self._oldest[0]
            waiting = self._pods.get(uid)
            stale = waiting is None or waiting.place != "parked"
            if not stale and due > now:
                break
            self._oldest.popleft()
            if waiting is not None and not stale:
                waiting.flushed = True
                self._activate(waiting, "UnschedulableTimeout")
        soonest = [self._backoff[0][0]] if self._backoff else []
        soonest += [self._oldest[0][0]] if self._oldest else []
        return min(soonest) - now if soonest else None
