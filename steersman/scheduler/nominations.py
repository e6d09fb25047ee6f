"""Nominated pods: those for which room is being made on a node, by evicting others.

Owns who is nominated where. A nominated pod is counted on its node like one that is there, so that nobody takes its
room, except while a pod that goes before it is decided. Called by the loop, the observer and preemption's callers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from steersman.scheduler.columns import Columns
from steersman.scheduler.podinfo import PodInfo


class Nominations:
    """By uid; the columns know who they are, so that nobody evicts them."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._nodes: dict[str, str] = {}
        self._by_priority: dict[int, dict[str, PodInfo]] = {}

    def node_of(self, pod: PodInfo) -> str:
        """Where the pod is nominated, or empty."""
        return self._nodes.get(pod.uid, "")

    def add(self, pod: PodInfo, node: str) -> None:
        """Count a pod on the node where room is being made for it."""
        self.remove(pod.uid)
        self._nodes[pod.uid] = node
        self._by_priority.setdefault(pod.priority, {})[pod.uid] = pod
        self._columns.nominated.add(pod.uid)
        self._columns.add_pod(pod, node)

    def remove(self, uid: str, *, counted: bool = True) -> None:
        """Forget a nomination; unknown is harmless. `counted` False: the pod is there now, and stays counted."""
        if self._nodes.pop(uid, None) is None:
            return
        self._columns.nominated.discard(uid)
        for priority, pods in list(self._by_priority.items()):
            if pods.pop(uid, None) is not None and not pods:
                del self._by_priority[priority]
        if counted:
            self._columns.remove_pod(uid)

    def lower(self, pod: PodInfo, node: str) -> list[str]:
        """The uids of those nominated to a node that are less important than the pod."""
        return [
            uid
            for priority, pods in self._by_priority.items()
            if priority < pod.priority
            for uid in pods
            if self._nodes[uid] == node
        ]

    @contextmanager
    def aside(self, pod: PodInfo, *, everybody: bool = False) -> Iterator[None]:
        """While this pod is decided, neither it nor those less important (or nobody at all) are counted."""
        away = [
            other
            for priority, pods in self._by_priority.items()
            if priority < pod.priority or everybody
            for other in pods.values()
        ]
        if not everybody and (own := self._by_priority.get(pod.priority, {}).get(pod.uid)) is not None:
            away.append(own)
        for other in away:
            self._columns.remove_pod(other.uid)
        try:
            yield
        finally:
            for other in away:
                if other.uid in self._nodes:
                    self._columns.add_pod(other, self._nodes[other.uid])

    def __len__(self) -> int:
        return len(self._nodes)
