"""DaemonSets: one pod on every node that suits.

Owns the pods, the revisions and the status of a DaemonSet. The scheduler binds the pods, each pinned to its node.
Source: kubernetes' pkg/controller/daemon; the texts of events are the original's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from steersman.api import labels, pods
from steersman.api.resource import CONTROLLERREVISIONS, DAEMONSETS, NODES, PODS, Object
from steersman.client.children import BURST, INDEX, Children
from steersman.client.controller import DONE, Context, Controller, For, Key, Owns, Result, Watch, key_of
from steersman.client.history import HASH_LABEL, hash_of, record, trim
from steersman.client.nodefit import matches, node_of, pinned, untolerated
from steersman.client.selecting import BY_SELECTOR, file_by_selector, object_selector, selectors
from steersman.client.workload import (
    controller_of,
    counts,
    created_at,
    is_available,
    pod_from_template,
    scaled,
    soonest_available,
)
from steersman.lib.backoff import Backoff

_GENERATION = "deprecated.daemonset.template.generation"
_ALWAYS = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)
_HOST_NETWORK = ("node.kubernetes.io/network-unavailable", "NoSchedule")


@dataclass(slots=True)
class Plan:
    """Nodes that get a pod, and pods to delete; `failed` and `succeeded` among them are told by events.

    `idle` are deleted because they are not available, and only if they still are: what we see may be old.
    """

    create: list[str] = field(default_factory=list)
    delete: list[Object] = field(default_factory=list)
    idle: list[Object] = field(default_factory=list)
    failed: list[Object] = field(default_factory=list)
    succeeded: list[Object] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Where:
    """A node, whether a pod should start there, and whether one may stay."""

    name: str
    run: bool
    stay: bool


def tolerations_of(template: Object) -> list[Object]:
    """The template's tolerations and those that every daemon pod has."""
    spec = template["spec"]
    have = list(spec.get("tolerations") or ())
    wanted = [*_ALWAYS, *((_HOST_NETWORK,) if spec.get("hostNetwork") else ())]
    for key, effect in wanted:
        added = {"key": key, "operator": "Exists", "effect": effect}
        if added not in have:
            have.append(added)
    return have


def suits(owner: Object, node: Object) -> Where:
    """Whether the node shall and may run the DaemonSet's pod."""
    template = owner["spec"]["template"]
    spec, name = template["spec"], node["metadata"]["name"]
    if spec.get("nodeName") not in (None, "", name) or not matches(spec, node):
        return Where(name, False, False)
    taints = node["spec"].get("taints") or ()
    tolerations = tolerations_of(template)
    if untolerated(tolerations, taints, ("NoSchedule", "NoExecute")):
        return Where(name, False, not untolerated(tolerations, taints, ("NoExecute",)))
    return Where(name, True, True)


def by_node(found: Iterable[Object]) -> dict[str, list[Object]]:
    """Pods by node, oldest first; those that ended and are being deleted are nobody's concern."""
    out: dict[str, list[Object]] = {}
    for pod in sorted(found, key=lambda each: (created_at(each), each["metadata"]["name"])):
        if not (pods.is_terminal(pod) and pod["metadata"].get("deletionTimestamp")):
            out.setdefault(node_of(pod), []).append(pod)
    return out


def plan_nodes(nodes: Sequence[Where], placed: Mapping[str, list[Object]], digest: str, *, surging: bool) -> Plan:
    """One pod where one should be, none where none may be; two while a surge replaces the old by the new."""
    steps = Plan()
    for where in nodes:
        here = placed.get(where.name, [])
        if where.run and not here:
            steps.create.append(where.name)
        elif not where.stay:
            steps.delete += [pod for pod in here if not pod["metadata"].get("deletionTimestamp")]
        else:
            _plan_node(here, digest, steps, surging=surging)
    known = {where.name for where in nodes}
    for name, here in placed.items():
        if name not in known:
            steps.delete += [
                pod for pod in here if not pod["spec"].get("nodeName") and not pod["metadata"].get("deletionTimestamp")
            ]
    return steps


def _plan_node(here: Sequence[Object], digest: str, steps: Plan, *, surging: bool) -> None:
    running: list[Object] = []
    for pod in here:
        phase = (pod.get("status") or {}).get("phase")
        if pod["metadata"].get("deletionTimestamp"):
            continue
        if phase in ("Failed", "Succeeded"):
            (steps.failed if phase == "Failed" else steps.succeeded).append(pod)
        else:
            running.append(pod)
    if surging:
        new = [pod for pod in running if _is_new(pod, digest)]
        old = [pod for pod in running if not _is_new(pod, digest)]
        steps.delete += new[1:] + old[1:]
    else:
        steps.delete += running[1:]


def _is_new(pod: Object, digest: str) -> bool:
    return (pod["metadata"].get("labels") or {}).get(HASH_LABEL) == digest


def plan_update(
    owner: Object, nodes: Sequence[Where], placed: Mapping[str, list[Object]], digest: str, now: float
) -> Plan:
    """A rolling update's next steps: no more pods missing, or surplus, than the strategy allows."""
    rolling = (owner["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}
    desired = sum(where.run for where in nodes)
    surge = scaled(rolling.get("maxSurge"), desired, up=True)
    unavailable = scaled(rolling.get("maxUnavailable", 1), desired, up=True)
    if not surge and not unavailable:
        unavailable = 1
    pairs: dict[str, tuple[Object | None, Object | None] | None] = {}
    for name, here in placed.items():
        alive = [pod for pod in here if not pod["metadata"].get("deletionTimestamp")]
        new = [pod for pod in alive if _is_new(pod, digest)]
        old = [pod for pod in alive if not _is_new(pod, digest)]
        fine = len(new) <= 1 and len(old) <= 1
        pairs[name] = (new[0] if new else None, old[0] if old else None) if fine else None
    seconds = owner["spec"].get("minReadySeconds") or 0
    if surge:
        return _surge(pairs, {where.name: where for where in nodes}, surge, desired, seconds, now)
    return _replace(pairs, unavailable, seconds, now)


Pairs = Mapping[str, tuple[Object | None, Object | None] | None]


def _replace(pairs: Pairs, most: int, seconds: int, now: float) -> Plan:
    steps = Plan()
    candidates: list[Object] = []
    missing = 0
    for pair in pairs.values():
        new, old = pair or (None, None)
        if (new is None) == (old is None):
            missing += 1
        elif new is not None:
            missing += not is_available(new, seconds, now)
        elif old is not None and not is_available(old, seconds, now):
            steps.idle.append(old)
            missing += 1
        elif old is not None:
            candidates.append(old)
    steps.delete += candidates[: max(most - missing, 0)]
    return steps


def _surge(pairs: Pairs, nodes: Mapping[str, Where], most: int, desired: int, seconds: int, now: float) -> Plan:
    steps = Plan()
    candidates: list[str] = []
    leaving: list[Object] = []
    surplus = available = 0
    for name, pair in pairs.items():
        if pair is None:
            surplus += 1
            continue
        new, old = pair
        first = old or new
        available += first is not None and is_available(first, seconds, now)
        if old is None:
            continue
        fine = is_available(old, seconds, now)
        run = name in nodes and nodes[name].run
        if new is not None:
            if is_available(new, seconds, now):
                steps.delete.append(old)
            else:
                surplus += 1
        elif not run:
            (leaving if fine else steps.delete).append(old)
        else:
            (candidates if fine else steps.create).append(name)
    steps.delete += leaving[: max(available - desired, 0)]
    steps.create += candidates[: max(most - surplus, 0)]
    return steps


def status_of(
    owner: Object, nodes: Sequence[Where], placed: Mapping[str, list[Object]], digest: str, collisions: int, now: float
) -> Object:
    """The new status."""
    seconds = owner["spec"].get("minReadySeconds") or 0
    desired = current = wrong = ready = available = updated = 0
    for where in nodes:
        here = placed.get(where.name) or []
        if not where.run:
            wrong += bool(here)
            continue
        desired += 1
        if here:
            current += 1
            if pods.is_ready(here[0]):
                ready += 1
                available += is_available(here[0], seconds, now)
            updated += _is_new(here[0], digest)
    status = counts(
        {
            "currentNumberScheduled": current,
            "numberMisscheduled": wrong,
            "desiredNumberScheduled": desired,
            "numberReady": ready,
            "observedGeneration": owner["metadata"].get("generation"),
            "updatedNumberScheduled": updated,
            "numberAvailable": available,
            "numberUnavailable": desired - available,
            "collisionCount": collisions or (owner.get("status") or {}).get("collisionCount"),
        },
        always=("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"),
    )
    conditions = (owner.get("status") or {}).get("conditions")
    return status | ({"conditions": conditions} if conditions else {})


async def reconcile(context: Context, key: Key) -> Result:
    """Bring one DaemonSet's pods to its nodes, update them, and write its status."""
    owner = context.informer(DAEMONSETS).get(*key)
    if owner is None:
        context.expectations.forget([key])
        _known(context).places.pop(key, None)
        return DONE
    selector = labels.from_object(owner["spec"]["selector"])
    if selector.everything:
        text = "This daemon set is selecting all pods. A non-empty selector is required."
        context.recorder.event(owner, "Warning", "SelectingAll", text)
        return DONE
    if owner["metadata"].get("deletionTimestamp"):
        return DONE
    children = Children(context, owner, DAEMONSETS, PODS)
    history = await record(context, owner, DAEMONSETS, selector)
    digest = hash_of(history.current)
    found = await children.claim(selector)
    placed = by_node(found)
    nodes = _nodes(context, owner, placed)
    now = context.clock.now()
    wait = 0.0
    if children.settled():
        strategy = owner["spec"].get("updateStrategy") or {}
        surging = bool(scaled((strategy.get("rollingUpdate") or {}).get("maxSurge"), len(nodes), up=True))
        steps = plan_nodes(nodes, placed, digest, surging=surging)
        wait = _hold_failed(context, key, steps)
        if not (steps.create or steps.delete) and strategy.get("type") != "OnDelete":
            steps = plan_update(owner, nodes, placed, digest, now)
        await _act(children, steps, digest)
        live = [(pod["metadata"].get("labels") or {}).get(HASH_LABEL, "") for pod in found]
        await trim(context, history, owner["spec"].get("revisionHistoryLimit", 10), live)
    status = status_of(owner, nodes, placed, digest, history.collisions, now)
    if status != owner.get("status"):
        await context.client.update(DAEMONSETS, {**owner, "status": status}, subresource="status")
    soon = soonest_available(found, owner["spec"].get("minReadySeconds") or 0, now)
    return Result(min((each for each in (soon, wait) if each), default=0.0))


def _hold_failed(context: Context, key: Key, steps: Plan) -> float:
    """Failed pods are replaced, ever more slowly; returns seconds until the next may be."""
    backoff: Backoff[tuple[Key, str]] = context.memory.setdefault("backoff", Backoff(1.0, 900.0))
    due: dict[tuple[Key, str], float] = context.memory.setdefault("due", {})
    now, wait = context.clock.monotonic(), 0.0
    owner = context.informer(DAEMONSETS).get(*key)
    assert owner is not None
    for pod in steps.failed:
        at = (key, node_of(pod))
        if due.get(at, 0.0) > now:
            left = due[at] - now
            wait = min(wait, left) if wait else left
            continue
        due[at] = now + backoff.next(at)
        text = f"Found failed daemon pod {key_of(pod)} on node {at[1]}, will try to kill it"
        context.recorder.event(owner, "Warning", "FailedDaemonPod", text)
        steps.delete.append(pod)
    for pod in steps.succeeded:
        text = f"Found succeeded daemon pod {key_of(pod)} on node {node_of(pod)}, will try to delete it"
        context.recorder.event(owner, "Normal", "SucceededDaemonPod", text)
        steps.delete.append(pod)
    return wait


async def _act(children: Children, steps: Plan, digest: str) -> None:
    owner = children.owner
    made = pod_from_template(owner["spec"]["template"], owner, DAEMONSETS)
    marks = {HASH_LABEL: digest}
    if generation := (owner["metadata"].get("annotations") or {}).get(_GENERATION):
        marks["pod-template-generation"] = generation
    made["metadata"]["labels"] = {**(made["metadata"].get("labels") or {}), **marks}
    spec: Object = {**made["spec"], "tolerations": tolerations_of(owner["spec"]["template"])}
    wanted = [
        {**made, "spec": {**spec, "affinity": pinned(spec.get("affinity"), name)}} for name in steps.create[:BURST]
    ]
    await children.delete_all(steps.delete[:BURST])
    await children.delete_all(steps.idle[:BURST], as_seen=True)
    await children.create_all(wanted)


@dataclass(slots=True)
class _Known:
    """The nodes as far as they matter: a node's facts, and for each DaemonSet's generation where its pods may be.

    Both are kept up when a node changes, so that a pod's change costs no look at any node.
    """

    facts: dict[str, object] = field(default_factory=dict)
    places: dict[Key, tuple[object, dict[str, Where]]] = field(default_factory=dict)


def _known(context: Context) -> _Known:
    found: _Known = context.memory.setdefault(_Known, _Known())
    return found


def _nodes(context: Context, owner: Object, placed: Mapping[str, list[Object]]) -> list[Where]:
    """The nodes where the DaemonSet's pods shall be or may stay, and those where some are that may not."""
    known, meta, nodes = _known(context), owner["metadata"], context.informer(NODES)
    key, mark = key_of(owner), (meta["uid"], meta.get("generation"))
    if known.places.get(key, (None,))[0] != mark:
        found = [suits(owner, node) for node in nodes.list()]
        known.places[key] = mark, {where.name: where for where in found if where.run or where.stay}
    places = known.places[key][1]
    strays = [name for name in placed if name not in places and nodes.get("", name) is not None]
    return [*places.values(), *(Where(name, False, False) for name in strays)]


def _touched(context: Context, node: Object) -> Iterable[Key]:
    """The DaemonSets to which a node is another place than before: its status is no matter."""
    known, name = _known(context), node["metadata"]["name"]
    there = context.informer(NODES).get("", name)
    facts = (there["metadata"].get("labels"), there["spec"].get("taints"), there["metadata"]["uid"]) if there else None
    if known.facts.get(name) == facts:
        return
    known.facts[name] = facts
    if facts is None:
        del known.facts[name]
    for key, (_, places) in known.places.items():
        owner = context.informer(DAEMONSETS).get(*key)
        where = suits(owner, there) if owner is not None and there is not None else None
        old = places.pop(name, None)
        if where is not None and (where.run or where.stay):
            places[name] = where
        if old != places.get(name) or there is None:
            yield key


def _adopters(context: Context, pod: Object) -> Iterable[Key]:
    meta = pod["metadata"]
    if controller_of(pod) is None and meta.get("labels"):
        yield from map(key_of, selectors(context.informer(DAEMONSETS), pod))


CONTROLLER = Controller(
    "daemonset-controller",
    reconcile,
    (
        For(DAEMONSETS),
        Owns(PODS, DAEMONSETS),
        Watch(PODS, _adopters),
        Watch(NODES, _touched),
        Owns(CONTROLLERREVISIONS, DAEMONSETS),
    ),
    workers=2,
    indexes={
        PODS: INDEX,
        CONTROLLERREVISIONS: INDEX,
        DAEMONSETS: {BY_SELECTOR: file_by_selector(object_selector)},
    },
)
