"""Use of processors and memory, from two looks at a kubelet's counters.

Owns the reading of /stats/summary and the arithmetic. Called by the collector. Pure. Source: metrics-server's
pkg/storage (a container that is younger than the first look counts from its own start).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from steersman.lib.clock import parse_rfc3339

_YOUNGEST = 1.0  # seconds that a container must have run for its own start to count as a look
PodKey = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True, slots=True)
class Use:
    """Nanocores and bytes."""

    cpu: int
    memory: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What a node or a pod uses: `at` is when (Unix seconds), `window` the seconds that the processor's use is of."""

    at: float
    window: float
    total: Use
    containers: Mapping[str, Use] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Counter:
    """One container's, or the node's, counters: nanoseconds and bytes; `started` in Unix seconds."""

    cpu: int
    memory: int
    started: float


@dataclass(frozen=True, slots=True)
class Look:
    """One node's counters at one time."""

    at: float
    node: Counter
    pods: Mapping[PodKey, Mapping[str, Counter]]


class _Cpu(msgspec.Struct, rename="camel"):
    usage_core_nano_seconds: int = 0


class _Memory(msgspec.Struct, rename="camel"):
    working_set_bytes: int = 0


class _Subject(msgspec.Struct, rename="camel"):
    name: str = ""
    start_time: str = ""
    cpu: _Cpu | None = None
    memory: _Memory | None = None


class _Reference(msgspec.Struct):
    name: str
    namespace: str


class _Pod(msgspec.Struct, rename="camel"):
    pod_ref: _Reference
    containers: list[_Subject] = []


class _Summary(msgspec.Struct):
    node: _Subject
    pods: list[_Pod] = []


_summary = msgspec.json.Decoder(_Summary)


def read(body: bytes, at: float) -> Look:
    """A Summary. Raises ValueError when it is none."""
    try:
        found = _summary.decode(body)
        pods = {
            (pod.pod_ref.namespace, pod.pod_ref.name): {each.name: _counter(each) for each in pod.containers}
            for pod in found.pods
            if pod.containers and all(each.cpu and each.memory for each in pod.containers)
        }
        return Look(at, _counter(found.node), pods)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"no summary: {error}") from None


def _counter(subject: _Subject) -> Counter:
    cpu, memory = subject.cpu or _Cpu(), subject.memory or _Memory()
    started = parse_rfc3339(subject.start_time) if subject.start_time else 0.0
    return Counter(cpu.usage_core_nano_seconds, memory.working_set_bytes, started)


def node_usage(before: Look, after: Look) -> Usage | None:
    """The node's use between two looks; None when it started anew."""
    window = after.at - before.at
    if window <= 0 or after.node.cpu < before.node.cpu:
        return None
    return Usage(after.at, window, Use(int((after.node.cpu - before.node.cpu) / window), after.node.memory))


def pod_usages(before: Look, after: Look) -> dict[PodKey, Usage]:
    """Use of the pods all of whose containers can be told."""
    out: dict[PodKey, Usage] = {}
    for key, containers in after.pods.items():
        earlier = before.pods.get(key, {})
        uses: dict[str, Use] = {}
        window = 0.0
        for name, counter in containers.items():
            since, base = _base(before, earlier.get(name), counter, after.at)
            seconds = after.at - since
            if base is None or seconds <= 0:
                break
            uses[name] = Use(int((counter.cpu - base) / seconds), counter.memory)
            window = max(window, seconds)
        else:
            total = Use(sum(use.cpu for use in uses.values()), sum(use.memory for use in uses.values()))
            out[key] = Usage(after.at, window, total, uses)
    return out


def _base(before: Look, earlier: Counter | None, now: Counter, at: float) -> tuple[float, int | None]:
    """Since when and from which count a container is measured; None as count when it cannot be yet."""
    if earlier is not None and earlier.started == now.started and earlier.cpu <= now.cpu:
        return before.at, earlier.cpu
    if now.started and now.started >= before.at - 1.0 and at - now.started >= _YOUNGEST:
        return now.started, 0
    return at, None
