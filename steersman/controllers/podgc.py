"""Pod garbage collection: pods whose node is gone, pods deleted before they had one, too many that have ended.

Owns the forced deletion of pods that no kubelet will ever confirm. Setting: `terminated-pod-gc-threshold` (12500).
Source: kubernetes' pkg/controller/podgc.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from steersman.api import pods
from steersman.api.errors import ApiError
from steersman.api.resource import NODES, PODS, Object
from steersman.client.controller import DONE, Context, Controller, For, Key, Result, Watch, key_of
from steersman.client.nodefit import BY_NODE, file_by_node
from steersman.client.workload import created_at, set_condition

_ENDED = "ended"
_QUARANTINE = 40.0  # seconds that a node must be gone
_OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"


async def reconcile(context: Context, key: Key) -> Result:
    """Decide about one pod."""
    pod = context.informer(PODS).get(*key)
    gone: dict[str, float] = context.memory.setdefault("gone", {})
    if pod is None:
        return DONE
    name = pod["spec"].get("nodeName") or ""
    deleting = bool(pod["metadata"].get("deletionTimestamp"))
    if not name:
        if deleting:
            await _fail(context, pod, "")
            await _delete(context, pod, "unscheduled")
        return await _trim(context, pod)
    node = context.informer(NODES).get("", name)
    if node is None:
        since = gone.setdefault(name, context.clock.monotonic())
        left = since + _QUARANTINE - context.clock.monotonic()
        if left > 0:
            return Result(left)
        if await _is_gone(context, name):
            await _fail(context, pod, "PodGC: node no longer exists")
            await _delete(context, pod, "orphaned")
        return DONE
    gone.pop(name, None)
    taints = node["spec"].get("taints") or ()
    if deleting and not _is_ready(node) and any(each["key"] == _OUT_OF_SERVICE for each in taints):
        await _fail(context, pod, "")
        await _delete(context, pod, "out-of-service")
        return DONE
    return await _trim(context, pod)


async def _trim(context: Context, pod: Object) -> Result:
    """Delete the oldest ended pods above the threshold."""
    limit = int(context.config.get("terminated-pod-gc-threshold", "12500"))
    if limit <= 0 or not _has_ended(pod):
        return DONE
    informer = context.informer(PODS)
    surplus = informer.count(_ENDED, "") - limit
    if surplus > 0:
        for each in sorted(informer.by_index(_ENDED, ""), key=_rank)[:surplus]:
            await _delete(context, each, "terminated")
    return DONE


def _rank(pod: Object) -> tuple[bool, float, str]:
    """Evicted pods go first, then the oldest."""
    return (pod.get("status") or {}).get("reason") != "Evicted", created_at(pod), pod["metadata"]["name"]


def _has_ended(pod: Object) -> bool:
    return pods.is_terminal(pod) and not pod["metadata"].get("deletionTimestamp")


def _is_ready(node: Object) -> bool:
    return (pods.condition(node, "Ready") or {}).get("status") == "True"


async def _is_gone(context: Context, name: str) -> bool:
    """Ask the API server itself: what follows cannot be undone."""
    try:
        await context.client.get(NODES, name)
    except ApiError as error:
        if error.code != 404:
            raise
        return True
    return False


async def _fail(context: Context, pod: Object, why: str) -> None:
    """A pod that nobody runs has failed; its controller must know before it is gone, and maybe why."""
    if pods.is_terminal(pod):
        return
    meta, status = pod["metadata"], dict[str, Any](phase="Failed")
    seen = meta.get("generation") or 0
    if seen:
        status["observedGeneration"] = seen
    if why:
        old = [dict(each) for each in (pod.get("status") or {}).get("conditions") or ()]
        now = context.clock.now()
        set_condition(old, "DisruptionTarget", "True", "DeletionByPodGC", why, now, generation=seen)
        status["conditions"] = [each for each in old if each["type"] == "DisruptionTarget"]
    body = {"metadata": {"uid": meta["uid"]}, "status": status}
    try:
        await context.client.patch(PODS, meta["name"], meta["namespace"], body, type="strategic", subresource="status")
    except ApiError as error:
        if error.code not in (404, 422):  # 422: one of the same name has another uid
            raise


async def _delete(context: Context, pod: Object, reason: str) -> None:
    meta, metrics = pod["metadata"], context.metrics
    labels = ("namespace", "reason")
    deleted = metrics.counter("pod_gc_collector_force_delete_pods_total", "Pods deleted by force.", labels)
    deleted.labels(meta["namespace"], reason).inc()
    try:
        await context.client.delete(PODS, meta["name"], meta["namespace"], grace_seconds=0, uid=meta["uid"])
    except ApiError as error:
        if error.code not in (404, 409):
            name = "pod_gc_collector_force_delete_pod_errors_total"
            metrics.counter(name, "Pods that could not be.", labels).labels(meta["namespace"], reason).inc()
            raise


def _pods_of(context: Context, node: Object) -> Iterable[Key]:
    """Pods of a node that went, or that is out of service."""
    name = node["metadata"]["name"]
    taints = node["spec"].get("taints") or ()
    if context.informer(NODES).get("", name) is None or any(each["key"] == _OUT_OF_SERVICE for each in taints):
        yield from (key_of(pod) for pod in context.informer(PODS).by_index(BY_NODE, name))


CONTROLLER = Controller(
    "pod-garbage-collector-controller",
    reconcile,
    (For(PODS), Watch(NODES, _pods_of)),
    workers=2,
    indexes={PODS: {BY_NODE: file_by_node, _ENDED: lambda pod: [""] if _has_ended(pod) else []}},
)
