"""Nodes: one that falls silent is marked Unknown; conditions become taints.

Owns the node's conditions while its kubelet is silent, the taints node.kubernetes.io/* that follow from conditions,
and the Ready condition of pods on nodes that are silent. Evicting is `tainteviction`'s work; how many nodes a
second may be marked for it, `zones` says. Settings: `node-monitor-grace-period` (50), `node-startup-grace-period` (60),
both in seconds, and those of `zones.Pace`.
Source: kubernetes' pkg/controller/nodelifecycle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from steersman.api import pods
from steersman.api.errors import ApiError
from steersman.api.resource import LEASES, NODES, PODS, Object
from steersman.client.controller import DONE, Context, Controller, For, Key, Result, Watch
from steersman.client.metrics import Metrics, exponential
from steersman.client.nodefit import BY_NODE, file_by_node
from steersman.client.workload import condition, created_at
from steersman.controllers.nodelifecycle.zones import Pace, Zones, is_ready, zone_of
from steersman.lib.clock import rfc3339
from steersman.lib.metrics import Distribution

_PREFIX = "node.kubernetes.io/"
_LEASE_NAMESPACE = "kube-node-lease"
_WATCHED = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
_PRESSURES = {
    "MemoryPressure": "memory-pressure",
    "DiskPressure": "disk-pressure",
    "PIDPressure": "pid-pressure",
    "NetworkUnavailable": "network-unavailable",
}
_OLDER_LABELS = {f"kubernetes.io/{name}": f"beta.kubernetes.io/{name}" for name in ("os", "arch")}
_OURS = frozenset({"not-ready", "unreachable", "unschedulable", *_PRESSURES.values()})
Taint = tuple[str, str]  # key without prefix, effect


@dataclass(slots=True)
class Heard:
    """A node's last sign of life, by our own clock: others' clocks may be wrong."""

    node: Object  # what events of it name
    sign: str
    at: float


def wanted_taints(node: Object, *, evict: bool) -> set[Taint]:
    """The taints that the node's conditions ask for; without `evict` none that drives pods away."""
    found = (node.get("status") or {}).get("conditions") or ()
    ready = (condition(found, "Ready") or {"status": "True"})["status"]  # who has said nothing yet has his time
    out: set[Taint] = set()
    if ready != "True":
        name = "not-ready" if ready == "False" else "unreachable"
        out.add((name, "NoSchedule"))
        if evict:
            out.add((name, "NoExecute"))
    for kind, name in _PRESSURES.items():
        if (condition(found, kind) or {}).get("status") == "True":
            out.add((name, "NoSchedule"))
    if node["spec"].get("unschedulable"):
        out.add(("unschedulable", "NoSchedule"))
    return out


def tainted(node: Object, wanted: set[Taint], now: float) -> list[Object] | None:
    """The node's taints with ours as wanted; None when they are so already."""
    have = node["spec"].get("taints") or []
    ours = {
        (key, each["effect"])
        for each in have
        if each["key"].startswith(_PREFIX) and (key := each["key"].removeprefix(_PREFIX)) in _OURS
    }
    if ours == wanted:
        return None
    left = [each for each in have if (each["key"].removeprefix(_PREFIX), each["effect"]) not in ours - wanted]
    stamp = rfc3339(now)
    added = [
        {"key": _PREFIX + key, "effect": effect, "timeAdded": stamp} for key, effect in sorted(wanted - ours, key=_late)
    ]
    return left + added


def _late(taint: tuple[str, str]) -> tuple[bool, str]:
    """What keeps pods away comes before what drives them out."""
    return taint[1] != "NoSchedule", taint[0]


def silent(node: Object, now: float) -> list[Object] | None:
    """The conditions of a node that is not heard of any more; None when they say so already."""
    stamp = rfc3339(now)
    old = (node.get("status") or {}).get("conditions") or []
    out: list[Object] = []
    for kind in _WATCHED:
        known = condition(old, kind)
        if known is None:
            created = rfc3339(created_at(node))
            out.append(
                {
                    "type": kind,
                    "status": "Unknown",
                    "reason": "NodeStatusNeverUpdated",
                    "message": "Kubelet never posted node status.",
                    "lastHeartbeatTime": created,
                    "lastTransitionTime": stamp,
                }
            )
        elif known["status"] != "Unknown":
            text = "Kubelet stopped posting node status."
            changed = {"status": "Unknown", "reason": "NodeStatusUnknown", "message": text, "lastTransitionTime": stamp}
            out.append({**known, **changed})
        else:
            out.append(known)
    out += [each for each in old if each["type"] not in _WATCHED]
    return None if sorted(map(str, out)) == sorted(map(str, old)) else out


async def reconcile(context: Context, key: Key) -> Result:
    """Judge one node's silence, then its taints and its pods."""
    began = context.clock.monotonic()
    try:
        return await _judge(context, key)
    finally:
        _counts(context.metrics).observe(context.clock.monotonic() - began)


def _counts(metrics: Metrics) -> Distribution:
    name, bounds = "node_collector_update_node_health_duration_seconds", exponential(0.001, 4, 8)
    return metrics.histogram(name, "Seconds that a node's judgement takes.", (), bounds).labels()


async def _judge(context: Context, key: Key) -> Result:
    heard: dict[str, Heard] = context.memory.setdefault("heard", {})
    zones = _zones(context)
    node = context.informer(NODES).get(*key)
    if node is None:
        zones.tell(key.name, None)
        if (gone := heard.pop(key.name, None)) is not None:
            _tell(context, gone.node, "RemovingNode", f"event: Removing Node {key.name} from Controller")
        return DONE
    if key.name not in heard:
        _tell(context, node, "RegisteredNode", f"event: Registered Node {key.name} in Controller")
    left = _grace_left(context, node, heard)
    if left <= 0 and (conditions := silent(node, context.clock.now())) is not None:
        changed = {**node, "status": {**(node.get("status") or {}), "conditions": conditions}}
        was = is_ready(node)
        node = await context.client.update(NODES, changed, subresource="status")
        if was:
            _tell(context, node, "NodeNotReady", "status is now: NodeNotReady")
    zones.tell(key.name, node)
    turn = _turn(zones, node, context.clock.monotonic())
    taints = tainted(node, wanted_taints(node, evict=turn == 0), context.clock.now())
    labels = relabelled(node)
    evictions = context.metrics.counter("node_collector_evictions_total", "Nodes whose pods were to go.", ("zone",))
    emptied = evictions.labels(zone_of(node))
    if taints is not None and (_PREFIX + "unreachable", "NoExecute") in _marks(taints) - _marks(
        node["spec"].get("taints")
    ):
        emptied.inc()
    if taints is not None or labels is not None:
        spec = node["spec"] if taints is None else {**node["spec"], "taints": taints}
        meta = node["metadata"] if labels is None else {**node["metadata"], "labels": labels}
        await context.client.update(NODES, {**node, "metadata": meta, "spec": spec})
    if (pods.condition(node, "Ready") or {}).get("status") == "Unknown":  # who says False tells of its pods itself
        await _mark_pods(context, key.name)
    waits = [each for each in (left, turn) if each is not None and each > 0]
    return Result(min(waits, default=0.0))


def _marks(taints: Iterable[Object] | None) -> set[tuple[str, str]]:
    return {(each["key"], each["effect"]) for each in taints or ()}


def _zones(context: Context) -> Zones:
    found = context.memory.get("zones")
    if found is None:
        found = context.memory["zones"] = Zones(Pace.of(context.config))
        context.metrics.ask("node_collector", lambda: _count_zones(context, found))
    assert isinstance(found, Zones)
    return found


def _count_zones(context: Context, zones: Zones) -> None:
    gauge = context.metrics.gauge
    health = gauge("node_collector_zone_health", "Percent of a zone's nodes that are ready.", ("zone",))
    sizes = gauge("node_collector_zone_size", "Nodes of a zone.", ("zone",))
    failing = gauge("node_collector_unhealthy_nodes_in_zone", "Nodes of a zone that are not ready.", ("zone",))
    for family in (health, sizes, failing):
        family.clear()
    for zone, size, ready in zones.figures():
        health.labels(zone).set(100 * ready / size)
        sizes.labels(zone).set(size)
        failing.labels(zone).set(size - ready)


def _turn(zones: Zones, node: Object, now: float) -> float | None:
    """Seconds until pods may be driven from a node that is not ready; None: not as things are."""
    if is_ready(node):
        return 0.0
    if zones.stopped:
        return None
    marks = {(_PREFIX + name, "NoExecute") for name in ("not-ready", "unreachable")}
    if any((each["key"], each["effect"]) in marks for each in node["spec"].get("taints") or ()):
        return 0.0
    return zones.wait(node, now)


def relabelled(node: Object) -> Object | None:
    """The node's labels with the older names of its system beside the names of today; None when they are so."""
    labels = node["metadata"].get("labels") or {}
    wanted = {old: labels[new] for new, old in _OLDER_LABELS.items() if new in labels}
    return None if all(labels.get(name) == value for name, value in wanted.items()) else {**labels, **wanted}


def _tell(context: Context, node: Object, reason: str, text: str) -> None:
    context.recorder.event(_reference(node), "Normal", reason, f"Node {node['metadata']['name']} {text}")


def _grace_left(context: Context, node: Object, heard: dict[str, Heard]) -> float:
    """Seconds until the node counts as silent."""
    name = node["metadata"]["name"]
    leases = context.informers.informer(LEASES, namespace=_LEASE_NAMESPACE)
    lease = leases.get(_LEASE_NAMESPACE, name)
    renewed = str((lease or {"spec": {}})["spec"].get("renewTime") or "")
    beat = str((pods.condition(node, "Ready") or {}).get("lastHeartbeatTime") or "")
    sign = f"{renewed} {beat}"
    now = context.clock.monotonic()
    if name not in heard or heard[name].sign != sign:
        heard[name] = Heard(node, sign, now)
    never = not renewed and not beat
    grace = (
        context.config.get("node-startup-grace-period", "60")
        if never
        else context.config.get("node-monitor-grace-period", "50")
    )
    return heard[name].at + float(grace) - now


async def _mark_pods(context: Context, name: str) -> None:
    """Pods on a node that is silent count as not ready, so that Services leave them out."""
    for pod in context.informer(PODS).by_index(BY_NODE, name):
        found = pods.condition(pod, "Ready")
        if found is None or found["status"] != "True":
            continue
        stamp = rfc3339(context.clock.now())
        conditions = [
            {**each, "status": "False", "lastTransitionTime": stamp} if each["type"] == "Ready" else each
            for each in pod["status"]["conditions"]
        ]
        changed = {**pod, "status": {**pod["status"], "conditions": conditions}}
        try:
            await context.client.update(PODS, changed, subresource="status")
        except ApiError as error:
            if error.code != 404:
                raise
        context.recorder.event(pod, "Warning", "NodeNotReady", "Node is not ready")


def _reference(node: Object) -> Object:
    """Events of nodes name the node as its uid, as the original's do."""
    return {"kind": "Node", "apiVersion": "v1", "name": node["metadata"]["name"], "uid": node["metadata"]["uid"]}


def _every_node(context: Context, node: Object) -> Iterable[Key]:
    """When a zone's pace changes, all nodes are looked at again; else one counts its own and no other."""
    zones, name = _zones(context), node["metadata"]["name"]
    zones.tell(name, context.informer(NODES).get("", name))
    if zones.moved:
        zones.moved = False
        yield from (Key("", each["metadata"]["name"]) for each in context.informer(NODES).list())


def _can_be(config: Mapping[str, str]) -> bool:
    Pace.of(config)
    return True


def _of_lease(_: Context, lease: Object) -> Iterable[Key]:
    yield Key("", lease["metadata"]["name"])


CONTROLLER = Controller(
    "node-lifecycle-controller",
    reconcile,
    (For(NODES), Watch(NODES, _every_node), Watch(LEASES, _of_lease, namespace=_LEASE_NAMESPACE)),
    workers=4,
    indexes={PODS: {BY_NODE: file_by_node}},
    component="node-controller",
    asked_for=_can_be,
    counts=_counts,
)
