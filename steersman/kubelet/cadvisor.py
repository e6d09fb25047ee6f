"""What /metrics/cadvisor says: each container's use of the machine, under cAdvisor's names.

Pure. Owns the metric names; the numbers are the engine's and the machine's. Called by `agent` for the HTTPS server.
Source: cAdvisor's Prometheus metrics, as dashboards and the Prometheus adapter read them.
"""

from __future__ import annotations

from collections.abc import Sequence

from steersman.engine.interface import Container, Stats
from steersman.kubelet import labels
from steersman.lib.metrics import Registry

_WHO = ("container", "id", "image", "name", "namespace", "pod")
_NETWORK = ("id", "interface", "namespace", "pod")


def metrics(usages: Sequence[tuple[Container, Stats]], cpus: int, memory: int) -> str:
    """The text for these running containers on a machine with so many processors and bytes of memory."""
    registry = Registry()
    registry.gauge("machine_cpu_cores", "Number of logical CPU cores.").labels().set(cpus)
    registry.gauge("machine_memory_bytes", "Amount of memory installed on the machine.").labels().set(memory)
    cpu = registry.counter("container_cpu_usage_seconds_total", "Cumulative cpu time consumed", (*_WHO, "cpu"))
    counters = {
        name: registry.counter(name, text, _NETWORK)
        for name, text in (
            ("container_network_receive_bytes_total", "Cumulative count of bytes received"),
            ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted"),
        )
    }
    gauges = {name: registry.gauge(name, text, _WHO) for name, text in _GAUGES.items()}
    for container, usage in usages:
        known, config = container.config.labels, container.config
        namespace, pod = known.get(labels.POD_NAMESPACE, ""), known.get(labels.POD_NAME, "")
        path = f"/kubepods/pod{known.get(labels.POD_UID, '')}"
        image = config.annotations.get(labels.IMAGE, config.image)
        who = (config.name, f"{path}/{container.id}", image, container.id, namespace, pod)
        cpu.labels(*who, "total").set(usage.cpu_ns / 1e9)
        limits = config.resources
        values = {
            "container_memory_usage_bytes": usage.memory_usage,
            "container_memory_working_set_bytes": usage.memory_working_set,
            "container_memory_rss": usage.memory_rss,
            "container_processes": usage.pids,
            "container_fs_usage_bytes": usage.rootfs_used,
            "container_last_seen": usage.timestamp,
            "container_start_time_seconds": container.started_at,
            "container_spec_cpu_shares": limits.cpu_shares,
            "container_spec_memory_limit_bytes": limits.memory_limit,
        }
        if limits.cpu_quota > 0:
            values |= {"container_spec_cpu_quota": limits.cpu_quota, "container_spec_cpu_period": limits.cpu_period}
        for name, value in values.items():
            gauges[name].labels(*who).set(value)
        network = (path, "eth0", namespace, pod)
        counters["container_network_receive_bytes_total"].labels(*network).set(usage.network_rx_bytes)
        counters["container_network_transmit_bytes_total"].labels(*network).set(usage.network_tx_bytes)
    return registry.text()


_GAUGES = {
    "container_fs_usage_bytes": "Number of bytes that are consumed by the container on this filesystem.",
    "container_last_seen": "Last time a container was seen by the exporter",
    "container_memory_rss": "Size of RSS in bytes.",
    "container_memory_usage_bytes": "Current memory usage in bytes, including all memory regardless of when accessed",
    "container_memory_working_set_bytes": "Current working set in bytes.",
    "container_processes": "Number of processes running inside the container.",
    "container_spec_cpu_period": "CPU period of the container.",
    "container_spec_cpu_quota": "CPU quota of the container.",
    "container_spec_cpu_shares": "CPU share of the container.",
    "container_spec_memory_limit_bytes": "Memory limit for the container.",
    "container_start_time_seconds": "Start time of the container since unix epoch in seconds.",
}
