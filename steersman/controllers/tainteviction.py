"""Taint eviction: pods leave a node with a NoExecute taint that they do not tolerate, or not for ever.

Owns the deletion of such pods. Source: kubernetes' pkg/controller/tainteviction, and the documentation of taints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from steersman.api.resource import NODES, PODS, Object
from steersman.client.controller import DONE, Context, Controller, For, Key, Result, Watch, key_of
from steersman.client.disrupt import disrupt
from steersman.client.metrics import Metrics
from steersman.client.nodefit import BY_NODE, file_by_node, tolerates
from steersman.lib.metrics import Distribution, Value

_LATE = (0.005, 0.025, 0.1, 0.5, 1, 2.5, 10, 30, 60, 120, 180, 240)  # seconds


def stay(tolerations: Sequence[Object], taints: Sequence[Object]) -> float | None:
    """Seconds that a pod may stay beside these taints: 0 not at all, None for ever."""
    limits: list[float] = []
    for taint in taints:
        covering = [each for each in tolerations if tolerates(each, taint)]
        if not covering:
            return 0.0
        limits += [
            max(float(each["tolerationSeconds"]), 0.0) for each in covering if each.get("tolerationSeconds") is not None
        ]
    return min(limits, default=None)


@dataclass(slots=True)
class _Due:
    """Pods whose time runs, by node too, and when it is over: once it runs, further taints do not change it."""

    nodes: dict[Key, str] = field(default_factory=dict)
    at: dict[str, set[Key]] = field(default_factory=dict)
    ends: dict[Key, tuple[str, float]] = field(default_factory=dict)  # the pod's uid, and Unix seconds

    def until(self, key: Key, uid: str, node: str, end: float) -> float:
        """When the pod's time on the node is over; `end` if it does not run yet."""
        if self.nodes.get(key) == node and self.ends[key][0] == uid:
            return self.ends[key][1]
        self.drop(key)
        self.nodes[key], self.ends[key] = node, (uid, end)
        self.at.setdefault(node, set()).add(key)
        return end

    def drop(self, key: Key) -> bool:
        """It does not any more; whether it did."""
        node = self.nodes.pop(key, None)
        if node is None:
            return False
        del self.ends[key]
        self.at[node].discard(key)
        if not self.at[node]:
            del self.at[node]
        return True


def _due(context: Context) -> _Due:
    found: _Due = context.memory.setdefault(_Due, _Due())
    return found


def _counts(metrics: Metrics) -> tuple[Value, Distribution]:
    """How many pods were deleted, and how late."""
    name = "taint_eviction_controller_pod_deletion"
    deleted = metrics.counter(f"{name}s_total", "Pods deleted since the start.").labels()
    text = "Seconds from the moment a pod was to go to its deletion."
    return deleted, metrics.histogram(f"{name}_duration_seconds", text, bounds=_LATE).labels()


def _count(context: Context, late: float) -> None:
    deleted, lateness = _counts(context.metrics)
    deleted.inc()
    lateness.observe(max(late, 0.0))


async def reconcile(context: Context, key: Key) -> Result:
    """Evict one pod if its time is up."""
    due = _due(context)
    pod = context.informer(PODS).get(*key)
    name = (pod or {"spec": {}})["spec"].get("nodeName") or ""
    node = context.informer(NODES).get("", name) if name else None
    if pod is None or node is None or pod["metadata"].get("deletionTimestamp"):
        due.drop(key)
        return DONE
    taints = [each for each in node["spec"].get("taints") or () if each["effect"] == "NoExecute"]
    seconds = stay(pod["spec"].get("tolerations") or (), taints) if taints else None
    if seconds is None:
        if due.drop(key):
            context.recorder.event(_named(key), "Normal", "TaintManagerEviction", f"Cancelling deletion of Pod {key}")
        return DONE
    now = context.clock.now()
    left = due.until(key, pod["metadata"]["uid"], name, now + seconds) - now if seconds > 0 else 0.0
    if left > 0:
        return Result(left)
    due.drop(key)
    await _evict(context, key, pod)
    _count(context, -left)
    return DONE


def _named(key: Key) -> Object:
    """The pod as its events name it: without its uid, as the original's."""
    return {"apiVersion": "v1", "kind": "Pod", "namespace": key.namespace, "name": key.name}


async def _evict(context: Context, key: Key, pod: Object) -> None:
    context.recorder.event(_named(key), "Normal", "TaintManagerEviction", f"Marking for deletion Pod {key}")
    text = "Taint manager: deleting due to NoExecute taint"
    await disrupt(context, pod, "DeletionByTaintManager", text)


def _pods_of(context: Context, node: Object) -> Iterable[Key]:
    """Every pod of a node with NoExecute taints, and of one that just lost them (some are due)."""
    name = node["metadata"]["name"]
    if any(each["effect"] == "NoExecute" for each in node["spec"].get("taints") or ()):
        yield from (key_of(pod) for pod in context.informer(PODS).by_index(BY_NODE, name))
    else:
        yield from list(_due(context).at.get(name, ()))


CONTROLLER = Controller(
    "taint-eviction-controller",
    reconcile,
    (For(PODS), Watch(NODES, _pods_of)),
    indexes={PODS: {BY_NODE: file_by_node}},
    counts=_counts,
)
