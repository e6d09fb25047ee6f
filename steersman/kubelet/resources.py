"""A container's requests and limits as the kernel's numbers, and the pod's class of service.

Owns quantities read as integers, QoS classes, cgroup names, CPU shares and quotas, OOM scores. Pure. Source: the
documentation of pod QoS and KEP-2837 (pod-level resources).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction

from steersman.api.quantity import add, milli, parse, whole
from steersman.api.resource import Object
from steersman.engine.interface import Resources
from steersman.kubelet import podspec

_PERIOD = 100_000  # microseconds
_GUARANTEED_OOM = -997
_BEST_EFFORT_OOM = 1000


__all__ = ["amount", "milli", "whole"]


def amount(quantity: str) -> Fraction:
    """A quantity as a number. Raises ValueError when it is none."""
    return parse(quantity).value


def requests(container: Object) -> Mapping[str, str]:
    """resources.requests."""
    return (container.get("resources") or {}).get("requests") or {}


def limits(container: Object) -> Mapping[str, str]:
    """resources.limits."""
    return (container.get("resources") or {}).get("limits") or {}


def qos_class(pod: Object) -> str:
    """Guaranteed, Burstable or BestEffort."""
    pod_level = pod["spec"].get("resources")
    sources = [pod["spec"]] if pod_level else [*podspec.containers(pod), *podspec.init_containers(pod)]
    names = ("cpu", "memory")
    asked = any(amount(q) for each in sources for name, q in requests(each).items() if name in names)
    capped = any(amount(q) for each in sources for name, q in limits(each).items() if name in names)
    if not asked and not capped:
        return "BestEffort"
    for each in sources:
        for name in names:
            limit = limits(each).get(name)
            request = requests(each).get(name, limit)
            if limit is None or not amount(limit) or request is None or amount(request) != amount(limit):
                return "Burstable"
    return "Guaranteed"


def cgroup_parent(pod: Object) -> str:
    """The pod's cgroup, relative to the node's root for pods."""
    qos = qos_class(pod)
    name = f"pod{podspec.uid(pod)}"
    return name if qos == "Guaranteed" else f"{qos.lower()}/{name}"


def cpu_shares(millicores: int) -> int:
    """cgroup v1 shares for a request; at least 2, at most 262144."""
    return min(max(millicores * 1024 // 1000, 2), 262_144)


def cpu_quota(millicores: int) -> int:
    """Microseconds per period for a limit; at least 1 ms, 0 for no limit."""
    return max(millicores * _PERIOD // 1000, 1000) if millicores else 0


def pod_total(pod: Object, name: str, which: str) -> int | None:
    """The pod's sum of requests or limits of `cpu` (millicores) or another resource (units); None: none asked.

    Limits: None as soon as one container has none. Init containers run before the others, sidecars beside them.
    """
    read = milli if name == "cpu" else whole
    own = ((pod["spec"].get("resources") or {}).get(which) or {}).get(name)
    if own is not None:
        return read(own)

    def of(container: Object) -> int | None:
        value = ((container.get("resources") or {}).get(which) or {}).get(name)
        return None if value is None else read(value)

    everything = [*podspec.containers(pod), *podspec.init_containers(pod)]
    if which == "limits" and any(of(each) is None for each in everything):
        return None
    if all(of(each) is None for each in everything):
        return None
    sidecars = peak = 0
    for each in podspec.init_containers(pod):
        value = of(each) or 0
        if podspec.is_sidecar(each):
            sidecars += value
            peak = max(peak, sidecars)
        else:
            peak = max(peak, sidecars + value)
    overhead = (pod["spec"].get("overhead") or {}).get(name)
    total = max(peak, sidecars + sum(of(each) or 0 for each in podspec.containers(pod)))
    return total + (read(overhead) if overhead is not None else 0)


def of_pod(pod: Object) -> Resources:
    """The limits of the pod's own cgroup."""
    qos = qos_class(pod)
    if qos == "BestEffort":
        return Resources(cpu_shares=2)
    cpu_limit = pod_total(pod, "cpu", "limits") or 0
    return Resources(
        cpu_shares=cpu_shares(pod_total(pod, "cpu", "requests") or 0),
        cpu_quota=cpu_quota(cpu_limit),
        cpu_period=_PERIOD if cpu_limit else 0,
        memory_limit=pod_total(pod, "memory", "limits") or 0,
        hugepage_limits=_hugepages(_merged(limits(each) for each in podspec.containers(pod))),
    )


def of_container(pod: Object, container: Object, memory_capacity: int) -> Resources:
    """The limits of one container. `memory_capacity`: the node's, in bytes, for the OOM score."""
    pod_limits = (pod["spec"].get("resources") or {}).get("limits") or {}
    own = limits(container)
    cpu_limit = milli(own.get("cpu") or pod_limits.get("cpu") or "0")
    asked = requests(container).get("cpu", own.get("cpu", "0"))
    return Resources(
        cpu_shares=cpu_shares(milli(asked)),
        cpu_quota=cpu_quota(cpu_limit),
        cpu_period=_PERIOD if cpu_limit else 0,
        memory_limit=whole(own.get("memory") or pod_limits.get("memory") or "0"),
        oom_score_adj=oom_score(pod, container, memory_capacity),
        hugepage_limits=_hugepages(own),
    )


def oom_score(pod: Object, container: Object, memory_capacity: int) -> int:
    """How ready the kernel is to kill it: -997 for Guaranteed, 1000 for BestEffort, by request in between."""
    if (pod["spec"].get("priority") or 0) >= 2_000_001_000:
        return _GUARANTEED_OOM
    qos = qos_class(pod)
    if qos == "Guaranteed":
        return _GUARANTEED_OOM
    if qos == "BestEffort":
        return _BEST_EFFORT_OOM
    asked = whole(requests(container).get("memory", "0"))
    if podspec.is_sidecar(container):
        least = min((whole(requests(each).get("memory", "0")) for each in podspec.containers(pod)), default=0)
        asked = max(asked, least)
    score = 1000 - 1000 * asked // max(memory_capacity, 1)
    return min(max(score, 1000 + _GUARANTEED_OOM), _BEST_EFFORT_OOM - 1)


def _merged(lists: Iterable[Mapping[str, str]]) -> dict[str, str]:
    out: dict[str, str] = {}
    for each in lists:
        for name, quantity in each.items():
            out[name] = add(out.get(name, "0"), quantity)
    return out


def _hugepages(of: Mapping[str, str]) -> dict[str, int]:
    return {
        name.removeprefix("hugepages-"): whole(quantity)
        for name, quantity in of.items()
        if name.startswith("hugepages-")
    }
