"""Taint eviction: pods leave a node with a NoExecute taint that they do not tolerate, or not for ever.

Owns the deletion of such pods. Source: kubernetes' pkg/controller/tainteviction, and the documentation of taints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from steersman.api.resource import NODES, PODS, Object
from steersman.client.controller import DONE, Context, Controller, For, Key, Result, Watch, key_of
from steersman.client.disrupt import disrupt
from steersman.client.nodefit import BY_NODE, file_by_node, tolerates
from steersman.lib.clock import parse_rfc3339


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


async def reconcile(context: Context, key: Key) -> Result:
    """Evict one pod if its time is up."""
    due: dict[Key, str] = context.memory.setdefault("due", {})
    pod = context.informer(PODS).get(*key)
    name = (pod or {"spec": {}})["spec"].get("nodeName") or ""
    node = context.informer(NODES).get("", name) if name else None
    if pod is None or node is None or pod["metadata"].get("deletionTimestamp"):
        due.pop(key, None)
        return DONE
    taints = [each for each in node["spec"].get("taints") or () if each["effect"] == "NoExecute"]
    seconds = stay(pod["spec"].get("tolerations") or (), taints) if taints else None
    if seconds is None:
        if due.pop(key, None):
            context.recorder.event(pod, "Normal", "TaintManagerEviction", f"Cancelling deletion of Pod {key}")
        return DONE
    now = context.clock.now()
    left = (
        max((parse_rfc3339(each["timeAdded"]) for each in taints if each.get("timeAdded")), default=now) + seconds - now
    )
    if seconds > 0 and left > 0:
        due[key] = name
        return Result(left)
    due.pop(key, None)
    await _evict(context, key, pod)
    return DONE


async def _evict(context: Context, key: Key, pod: Object) -> None:
    context.recorder.event(pod, "Normal", "TaintManagerEviction", f"Marking for deletion Pod {key}")
    text = "Taint manager: deleting due to NoExecute taint"
    await disrupt(context, pod, "DeletionByTaintManager", text)


def _pods_of(context: Context, node: Object) -> Iterable[Key]:
    """Every pod of a node with NoExecute taints, and of one that just lost them (some are due)."""
    name = node["metadata"]["name"]
    if any(each["effect"] == "NoExecute" for each in node["spec"].get("taints") or ()):
        yield from (key_of(pod) for pod in context.informer(PODS).by_index(BY_NODE, name))
    else:
        yield from [key for key, where in context.memory.get("due", {}).items() if where == name]


CONTROLLER = Controller(
    "taint-eviction-controller",
    reconcile,
    (For(PODS), Watch(NODES, _pods_of)),
    indexes={PODS: {BY_NODE: file_by_node}},
)
