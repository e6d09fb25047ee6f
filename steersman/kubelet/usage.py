"""The kubelet's own metrics: what runs here, and what it uses.

Pure but for reading the engine's list. Owns the metric names of `/metrics` and `/metrics/resource`; the numbers come
from the engine and from the Summary. Called by `server`. Source: pkg/kubelet/metrics, collectors/resource_metrics.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from steersman.api.resource import Object
from steersman.engine.interface import ContainerState, Runtime, SandboxState
from steersman.lib.metrics import Registry

Started = Mapping[tuple[str, str], float]
"""When a container of a pod (uid, name) was started, in Unix seconds."""

_CONTAINER = ("container", "pod", "namespace")


def register(metrics: Registry, runtime: Runtime, node_name: str) -> None:
    """Add what is known of this node's pods to its metrics. Raises ValueError when they are there already."""
    metrics.gauge("kubelet_node_name", "The node's name. The count is always 1.", ["node"]).labels(node_name).set(1)
    pods = metrics.gauge("kubelet_running_pods", "Number of pods that have a running pod sandbox")
    states = metrics.gauge("kubelet_running_containers", "Number of containers currently running", ["container_state"])

    def count() -> None:
        pods.labels().set(sum(box.state == SandboxState.READY for box in runtime.sandboxes()))
        containers = runtime.containers()
        for state in ContainerState:
            states.labels(state.value).set(sum(each.state == state for each in containers))

    metrics.collect(count)


def resource_metrics(summary: Object, started: Started) -> str:
    """The Summary's processor time (seconds) and working sets (bytes), as a metrics server reads them."""
    registry = Registry()
    error = "1 if there was an error while getting container metrics, 0 otherwise"
    registry.gauge("resource_scrape_error", error).labels().set(0)
    node = _Usage(registry, "node", ())
    pods = _Usage(registry, "pod", ("pod", "namespace"))
    containers = _Usage(registry, "container", _CONTAINER)
    text = "Start time of the container since unix epoch in seconds"
    starts = registry.gauge("container_start_time_seconds", text, _CONTAINER)
    node.set(summary["node"])
    for pod in summary["pods"]:
        where = pod["podRef"]["name"], pod["podRef"]["namespace"]
        pods.set(pod, *where)
        for container in pod.get("containers", ()):
            name = container["name"]
            containers.set(container, name, *where)
            if at := started.get((pod["podRef"]["uid"], name)):
                starts.labels(name, *where).set(at)
    return registry.text()


class _Usage:
    """The two metrics of one kind of subject."""

    def __init__(self, registry: Registry, subject: str, labels: Sequence[str]) -> None:
        cpu = f"Cumulative cpu time consumed by the {subject} in core-seconds"
        self._cpu = registry.counter(f"{subject}_cpu_usage_seconds_total", cpu, labels)
        memory = f"Current working set of the {subject} in bytes"
        self._memory = registry.gauge(f"{subject}_memory_working_set_bytes", memory, labels)

    def set(self, usage: Object, *labels: str) -> None:
        """Take over what the Summary knows; it may know nothing yet."""
        if cpu := usage.get("cpu"):
            self._cpu.labels(*labels).set(cpu["usageCoreNanoSeconds"] / 1e9)
        if memory := usage.get("memory"):
            self._memory.labels(*labels).set(memory["workingSetBytes"])
