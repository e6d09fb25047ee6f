"""What a container uses: cgroup counters, bytes it wrote, traffic of its sandbox. Blocks; runs in a worker."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from steersman.engine.interface import Stats
from steersman.engine.runtime import network
from steersman.engine.runtime.records import ContainerRecord
from steersman.engine.runtime.sandbox import Machine


def stats(machine: Machine, record: ContainerRecord, now: float) -> Stats:
    """Usage of a running container at `now` (Unix seconds). Raises FileNotFoundError when its cgroup is gone."""
    usage = machine.cgroups.usage(record.cgroup)
    used, inodes = disk_usage(machine.layout.written(record.id) / "upper")
    received, sent = network.traffic(record.sandbox_id)
    return Stats(
        timestamp=now,
        cpu_ns=usage.cpu_ns,
        memory_usage=usage.memory_usage,
        memory_working_set=usage.memory_working_set,
        memory_rss=usage.memory_rss,
        page_faults=usage.page_faults,
        major_page_faults=usage.major_page_faults,
        pids=usage.pids,
        rootfs_used=used,
        rootfs_inodes=inodes,
        network_rx_bytes=received,
        network_tx_bytes=sent,
    )


def disk_usage(directory: Path) -> tuple[int, int]:
    """Bytes and inodes below a directory, itself included."""
    used = count = 0
    for parent, _, files in os.walk(directory):
        for name in (".", *files):
            with contextlib.suppress(OSError):
                used += os.lstat(os.path.join(parent, name)).st_blocks * 512
                count += 1
    return used, count
