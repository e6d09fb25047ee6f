"""Usage of the node and its pods, as /stats/summary answers.

Owns the Summary document (stats/v1alpha1). Called by `agent` for the HTTPS server; numbers come from the engine and
from /proc.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from steersman.api.resource import Object
from steersman.engine.interface import Container, Images, Runtime, RuntimeFailure, Stats
from steersman.kubelet import labels, machine, podspec
from steersman.kubelet.settings import NodeConfig
from steersman.lib.clock import rfc3339

_SHORTEST = 1.0  # seconds between two looks that give a rate


class Rates:
    """Processor use between two looks at a counter, in nanocores. `started`: when the kubelet began (Unix seconds)."""

    def __init__(self, started: float) -> None:
        self.started = started
        self._last: dict[str, tuple[float, int, int | None]] = {}  # time, counter, last rate

    def of(self, key: str, counter: int, now: float) -> int | None:
        """None at the first look; looks within a second get the last answer."""
        at, before, rate = self._last.get(key, (now, counter, None))
        if now - at >= _SHORTEST and counter >= before:
            rate = int((counter - before) / (now - at))
            at, before = now, counter
        self._last[key] = (at, before, rate)
        return rate

    def keep_only(self, keys: set[str]) -> None:
        """Forget what is gone."""
        for key in set(self._last) - keys:
            del self._last[key]


Usages = Sequence[tuple[Container, Stats]]


async def usages(runtime: Runtime) -> list[tuple[Container, Stats]]:
    """Every running container of a pod with its usage. One that ends meanwhile is left out."""
    out = []
    for container in runtime.containers():
        if container.pid and container.config.labels.get(labels.POD_UID):
            try:
                out.append((container, await runtime.stats(container.id)))
            except RuntimeFailure:
                continue
    return out


def summary(
    settings: NodeConfig, found: Usages, images: Images, pods: Sequence[Object], rates: Rates, now: float
) -> Object:
    """The Summary of this node."""
    by_uid: dict[str, list[tuple[Container, Stats]]] = {}
    for container, usage in found:
        by_uid.setdefault(container.config.labels.get(labels.POD_UID, ""), []).append((container, usage))
    used, inodes = images.used_bytes()
    cpu, memory = machine.used()
    node = {
        "nodeName": settings.name,
        "startTime": rfc3339(rates.started),
        "cpu": _cpu(cpu, rates.of("", cpu, now), now),
        "memory": {
            "time": rfc3339(now),
            "availableBytes": max(settings.memory_capacity - memory, 0),
            "usageBytes": memory,
            "workingSetBytes": memory,
        },
        "fs": _disk(settings.root, now),
        "runtime": {"imageFs": {"time": rfc3339(now), "usedBytes": used, "inodesUsed": inodes}},
    }
    rates.keep_only({"", *by_uid, *(container.id for container, _ in found)})
    return {"node": node, "pods": [_pod(pod, by_uid.get(podspec.uid(pod), []), rates, now) for pod in pods]}


def _pod(pod: Object, found: Usages, rates: Rates, now: float) -> Object:
    namespace, name = podspec.key(pod)
    everything = [usage for _, usage in found]
    network = max(everything, key=lambda each: each.network_rx_bytes, default=None)
    cpu = sum(each.cpu_ns for each in everything)
    out: Object = {
        "podRef": {"name": name, "namespace": namespace, "uid": podspec.uid(pod)},
        "startTime": (pod.get("status") or {}).get("startTime") or rfc3339(now),
        "containers": [
            {
                "name": container.config.name,
                "startTime": rfc3339(container.started_at),
                "cpu": _cpu(usage.cpu_ns, rates.of(container.id, usage.cpu_ns, now), now),
                "memory": _memory([usage], now, container.config.resources.memory_limit),
                "rootfs": {"time": rfc3339(now), "usedBytes": usage.rootfs_used, "inodesUsed": usage.rootfs_inodes},
            }
            for container, usage in found
        ],
        "cpu": _cpu(cpu, rates.of(podspec.uid(pod), cpu, now), now),
        "memory": _memory(everything, now, 0),
        "process_stats": {"process_count": sum(each.pids for each in everything)},
    }
    if network is not None:
        counters = {"rxBytes": network.network_rx_bytes, "txBytes": network.network_tx_bytes}
        eth0 = {"name": "eth0", **counters}
        out["network"] = {"time": rfc3339(now), **eth0, "interfaces": [eth0]}
    return out


def _cpu(used: int, rate: int | None, now: float) -> Object:
    out: Object = {"time": rfc3339(now), "usageCoreNanoSeconds": used}
    return out if rate is None else {**out, "usageNanoCores": rate}


def _memory(found: Sequence[Stats], now: float, limit: int) -> Object:
    working = sum(each.memory_working_set for each in found)
    out: Object = {
        "time": rfc3339(now),
        "usageBytes": sum(each.memory_usage for each in found),
        "workingSetBytes": working,
        "rssBytes": sum(each.memory_rss for each in found),
        "pageFaults": sum(each.page_faults for each in found),
        "majorPageFaults": sum(each.major_page_faults for each in found),
    }
    if limit:
        out["availableBytes"] = max(limit - working, 0)
    return out


def _disk(path: Path, now: float) -> Object:
    try:
        found = os.statvfs(path)
    except OSError:
        return {"time": rfc3339(now)}
    return {
        "time": rfc3339(now),
        "availableBytes": found.f_bavail * found.f_frsize,
        "capacityBytes": found.f_blocks * found.f_frsize,
        "usedBytes": (found.f_blocks - found.f_bfree) * found.f_frsize,
        "inodes": found.f_files,
        "inodesFree": found.f_ffree,
        "inodesUsed": found.f_files - found.f_ffree,
    }
