"""Usage of the node and its pods, as /stats/summary answers.

Owns the Summary document (stats/v1alpha1). Called by `agent` for the HTTPS server; numbers come from the engine and
from /proc.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from steersman.api.resource import Object
from steersman.engine.interface import Images, Runtime, RuntimeFailure, Stats
from steersman.kubelet import labels, podspec
from steersman.kubelet.settings import NodeConfig
from steersman.lib.clock import rfc3339


async def summary(settings: NodeConfig, runtime: Runtime, images: Images, pods: Sequence[Object], now: float) -> Object:
    """The Summary of this node. A container that ends meanwhile is left out."""
    by_uid: dict[str, list[tuple[str, Stats]]] = {}
    for container in runtime.containers():
        uid = container.config.labels.get(labels.POD_UID, "")
        if not uid or not container.pid:
            continue
        try:
            usage = await runtime.stats(container.id)
        except RuntimeFailure:
            continue
        by_uid.setdefault(uid, []).append((container.config.name, usage))
    everything = [usage for group in by_uid.values() for _, usage in group]
    used, inodes = images.used_bytes()
    node = {
        "nodeName": settings.name,
        "startTime": rfc3339(now),
        "cpu": _cpu(everything, now),
        "memory": _memory(everything, now, settings.memory_capacity),
        "fs": _disk(settings.root, now),
        "runtime": {"imageFs": {"time": rfc3339(now), "usedBytes": used, "inodesUsed": inodes}},
    }
    return {"node": node, "pods": [_pod(pod, by_uid.get(podspec.uid(pod), []), now) for pod in pods]}


def _pod(pod: Object, usages: list[tuple[str, Stats]], now: float) -> Object:
    namespace, name = podspec.key(pod)
    everything = [usage for _, usage in usages]
    network = max(everything, key=lambda each: each.network_rx_bytes, default=None)
    out: Object = {
        "podRef": {"name": name, "namespace": namespace, "uid": podspec.uid(pod)},
        "startTime": (pod.get("status") or {}).get("startTime") or rfc3339(now),
        "containers": [
            {
                "name": container,
                "startTime": rfc3339(now),
                "cpu": _cpu([usage], now),
                "memory": _memory([usage], now, 0),
                "rootfs": {"time": rfc3339(now), "usedBytes": usage.rootfs_used, "inodesUsed": usage.rootfs_inodes},
            }
            for container, usage in usages
        ],
        "cpu": _cpu(everything, now),
        "memory": _memory(everything, now, 0),
        "process_stats": {"process_count": sum(each.pids for each in everything)},
    }
    if network is not None:
        out["network"] = {
            "time": rfc3339(now),
            "name": "eth0",
            "rxBytes": network.network_rx_bytes,
            "txBytes": network.network_tx_bytes,
        }
    return out


def _cpu(usages: list[Stats], now: float) -> Object:
    return {"time": rfc3339(now), "usageCoreNanoSeconds": sum(each.cpu_ns for each in usages)}


def _memory(usages: list[Stats], now: float, capacity: int) -> Object:
    working = sum(each.memory_working_set for each in usages)
    out: Object = {
        "time": rfc3339(now),
        "usageBytes": sum(each.memory_usage for each in usages),
        "workingSetBytes": working,
        "rssBytes": sum(each.memory_rss for each in usages),
        "pageFaults": sum(each.page_faults for each in usages),
        "majorPageFaults": sum(each.major_page_faults for each in usages),
    }
    if capacity:
        out["availableBytes"] = max(capacity - working, 0)
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
