"""What the kernel says of this process, as Prometheus' client libraries tell it: CPU, memory, descriptors, start.

Owns nothing but the reading of /proc/self, when it is asked. Called by whoever has a metrics registry.
Source: proc(5); the Prometheus client guidelines (process metrics).
"""

from __future__ import annotations

import os
import resource
from itertools import pairwise
from pathlib import Path

from steersman.lib.metrics import Registry

_GAUGES = {
    "process_resident_memory_bytes": "Bytes of memory resident.",
    "process_virtual_memory_bytes": "Bytes of memory mapped.",
    "process_start_time_seconds": "When the process began, in Unix seconds.",
    "process_open_fds": "Open file descriptors.",
    "process_max_fds": "File descriptors that may be open.",
    "process_virtual_memory_max_bytes": "Bytes of memory that may be mapped.",
}
_TRAFFIC = {"InOctets": "process_network_receive_bytes_total", "OutOctets": "process_network_transmit_bytes_total"}
_UNLIMITED = 2.0**64  # as Prometheus' libraries write it


def register(registry: Registry) -> None:
    """Tell of this process whenever the registry is printed."""
    cpu = registry.counter("process_cpu_seconds_total", "Seconds of CPU, user and system.").labels()
    gauges = {name: registry.gauge(name, text).labels() for name, text in _GAUGES.items()}
    traffic = {
        key: registry.counter(name, "Bytes of this network namespace.").labels() for key, name in _TRAFFIC.items()
    }
    tick, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    gauges["process_start_time_seconds"].set(began())

    def collect() -> None:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        cpu.set((int(fields[11]) + int(fields[12])) / tick)
        gauges["process_virtual_memory_bytes"].set(int(fields[20]))
        gauges["process_resident_memory_bytes"].set(int(fields[21]) * page)
        for key, value in _octets().items():
            traffic[key].set(value)
        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        gauges["process_virtual_memory_max_bytes"].set(most if most != resource.RLIM_INFINITY else _UNLIMITED)
        gauges["process_open_fds"].set(len(os.listdir("/proc/self/fd")))
        gauges["process_max_fds"].set(resource.getrlimit(resource.RLIMIT_NOFILE)[0])

    registry.collect(collect)


def began() -> float:
    """When this process began, in Unix seconds."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return _boot() + int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _octets() -> dict[str, int]:
    """Bytes received and sent in this network namespace."""
    for names, values in pairwise(Path("/proc/self/net/netstat").read_text().splitlines()):
        if names.startswith("IpExt:") and values.startswith("IpExt:"):
            found = dict(zip(names.split(), values.split(), strict=True))
            return {key: int(found[key]) for key in _TRAFFIC}
    return {}


def _boot() -> int:
    """When the machine began, in Unix seconds."""
    return int(Path("/proc/stat").read_text().partition("btime ")[2].split()[0])
