"""Pods that wait for a node: ready to try, backing off, or waiting for the cluster to change.

Owns the order (priority, then age) and when a pod that did not fit is tried again. It knows no plugin.
Source: kube-scheduler's scheduling queue (activeQ, backoffQ, unschedulablePods).
"""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass, field

from steersman.lib.clock import Clock
from steersman.scheduler.podinfo import PodInfo

UNSCHEDULABLE_MOST = 300.0  # seconds after which a pod is tried again whatever happened


@dataclass(slots=True)
class _Waiting:
    info: PodInfo
    attempts: int = 0
    due: float = 0.0  # monotonic: not before
    place: str = "active"  # active, backoff, unschedulable, gated, popped
    moved: int = 0  # the queue's move count when it was popped


@dataclass(order=True, slots=True)
class _Ticket:
    """A heap entry; stale ones are recognised by `number`."""

    order: tuple[int, str, int]
    uid: str = field(compare=False)


class Queue:
    """One scheduler's pending pods, by uid."""

    def __init__(self, clock: Clock, backoff_first: float = 1.0, backoff_most: float = 10.0) -> None:
        """Back-offs in seconds, as podInitialBackoffSeconds and podMaxBackoffSeconds."""
        self._clock = clock
        self._backoff_first, self._backoff_most = backoff_first, backoff_most
        self._pods: dict[str, _Waiting] = {}
        self._active: list[_Ticket] = []
        self._count = 0
        self._moves = 0
        self._wake = asyncio.Event()
        self._beside: set[str] = set()  # unschedulable pods to which a pod that comes may matter

    def __len__(self) -> int:
        return len(self._pods)

    def put(self, info: PodInfo) -> None:
        """Add a pod, or take note that it changed."""
        waiting = self._pods.get(info.uid)
        if waiting is None:
            waiting = self._pods[info.uid] = _Waiting(info)
            self._place(waiting)
            return
        waiting.info = info
        if waiting.place in ("unschedulable", "gated"):
            self._place(waiting)

    def _place(self, waiting: _Waiting) -> None:
        if waiting.info.gates:
            waiting.place = "gated"
        elif waiting.due > self._clock.monotonic():
            waiting.place = "backoff"
            self._wake.set()  # the popper's patience may be shorter now
        else:
            self._activate(waiting)

    def _activate(self, waiting: _Waiting) -> None:
        waiting.place = "active"
        self._count += 1
        info = waiting.info
        heapq.heappush(self._active, _Ticket((-info.priority, info.created, self._count), info.uid))
        self._wake.set()

    def remove(self, uid: str) -> None:
        """The pod is bound or gone."""
        self._pods.pop(uid, None)

    def failed(self, uid: str) -> None:
        """The pod that was popped did not fit: wait for a change, unless one came meanwhile."""
        waiting = self._pods.get(uid)
        if waiting is None or waiting.place != "popped":
            return
        waiting.due = self._clock.monotonic() + self._backoff(waiting)
        if waiting.moved != self._moves:
            self._place(waiting)
        else:
            waiting.place = "unschedulable"
            if waiting.info.affinity.near or waiting.info.spread:
                self._beside.add(uid)

    def _backoff(self, waiting: _Waiting) -> float:
        return min(self._backoff_first * 2.0 ** min(waiting.attempts - 1, 60), self._backoff_most)

    def retry(self, uid: str) -> None:
        """The pod that was popped could not be bound: try again after its back-off."""
        waiting = self._pods.get(uid)
        if waiting is not None and waiting.place == "popped":
            waiting.due = self._clock.monotonic() + self._backoff(waiting)
            self._place(waiting)

    def move_all(self) -> None:
        """The cluster changed in a way that may help: unschedulable pods get another try."""
        self._moves += 1
        for waiting in self._pods.values():
            if waiting.place == "unschedulable":
                self._place(waiting)

    def pod_came(self, info: PodInfo) -> None:
        """A pod is on a node now: those that want its like near, or are spread with it, get another try."""
        if not self._beside:
            return
        self._moves += 1
        for uid in list(self._beside):
            waiting = self._pods.get(uid)
            if waiting is None or waiting.place != "unschedulable":
                self._beside.discard(uid)
            elif _concerns(waiting.info, info):
                self._beside.discard(uid)
                self._place(waiting)

    async def pop(self) -> PodInfo:
        """The next pod to try; waits for one."""
        while True:
            self._wake.clear()
            patience = self._flush()
            while self._active:
                waiting = self._pods.get(heapq.heappop(self._active).uid)
                if waiting is not None and waiting.place == "active":
                    waiting.place, waiting.moved = "popped", self._moves
                    waiting.attempts += 1
                    return waiting.info
            if patience is None:
                await self._wake.wait()
            else:
                try:
                    async with asyncio.timeout(patience):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    def _flush(self) -> float | None:
        """Activate what has waited long enough; returns the seconds until the next one has, None without any."""
        now, soonest = self._clock.monotonic(), None
        for waiting in self._pods.values():
            if waiting.place == "backoff":
                due = waiting.due
            elif waiting.place == "unschedulable":
                due = waiting.due + UNSCHEDULABLE_MOST
            else:
                continue
            if due <= now:
                self._activate(waiting)
            elif soonest is None or due < soonest:
                soonest = due
        return None if soonest is None else soonest - now


def _concerns(waiting: PodInfo, came: PodInfo) -> bool:
    """Whether a pod that came may let another in. A namespace's labels are not asked: one try too many is harmless."""
    return any(term.peers.pods.matches(came.labels) for term in waiting.affinity.near) or any(
        spread.hard and spread.peers.pods.matches(came.labels) for spread in waiting.spread
    )
