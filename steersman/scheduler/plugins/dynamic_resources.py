"""DynamicResources: pods get the devices that their claims ask for, on a node that can reach them (KEP-4381).

A pod waits, unseen by everybody, until its claims are there. What is allocated says where the pod can go; what is not
is allocated for the node that is chosen, and written before the pod is bound. Pods without claims cost one look-up.
Source: kube-scheduler's plugins/dynamicresources.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import msgspec
import numpy as np

from steersman.api import durations
from steersman.api.resource import Object
from steersman.api.validation import quote
from steersman.client.deviceclaims import allocation, is_for, reserved_for
from steersman.scheduler import extended
from steersman.scheduler.allocation import result
from steersman.scheduler.allocator import MOST_STEPS, AllocationError, Allocator, InvalidPools, TimedOut, key
from steersman.scheduler.columns import Columns, Mask
from steersman.scheduler.devices import Devices
from steersman.scheduler.framework import (
    Event,
    Hint,
    Kind,
    Plugin,
    PluginError,
    Rejection,
    Rescue,
    Reservation,
    Scores,
    always,
    normalized,
)
from steersman.scheduler.inventory import Pool, Slice
from steersman.scheduler.plugins import node_affinity
from steersman.scheduler.podinfo import PodInfo
from steersman.scheduler.promises import Promise, Taken, deallocate, delete, readiness

_NAME = "DynamicResources"
_CANNOT = "cannot allocate all claims"
_LEFT = "cannot schedule extended resource claim"
_ELSEWHERE = "resourceclaim not available on the node"
STEPS_A_SECOND = MOST_STEPS // 10  # of filterTimeout: a search may not hold the loop for seconds, and ends the same
UNLIMITED = 50 * MOST_STEPS  # filterTimeout 0
_MOST_WAYS = 8  # FirstAvailableDeviceRequestMaxSize


def make(args: Mapping[str, Any]) -> Plugin:
    """With how long devices may take to be made ready, and to be looked for on one node."""
    patience = durations.seconds(args["bindingTimeout"])
    seconds = durations.seconds(args.get("filterTimeout", "10s"))
    steps = max(1, int(seconds * STEPS_A_SECOND)) if seconds else UNLIMITED
    return Plugin(
        _NAME,
        hold=hold,
        admit=admit,
        narrow=lambda columns, pod, left: narrow(columns, pod, left, patience, steps),
        score=lambda columns, pod, feasible: score(columns, pod, feasible, patience),
        reserve=lambda columns, pod, node: reserve(columns, pod, node, patience),
        rescue=lambda columns, pod: rescue(columns, pod, patience),
        hints=_HINTS,
    )


class _NotThere(Exception):
    """One of the pod's claims cannot be used yet."""


def _claims(devices: Devices, pod: PodInfo) -> list[Object]:
    """The claims that the pod names. Raises _NotThere."""
    wanted = pod.pod["spec"].get("resourceClaims")
    if not wanted:
        return []
    status = pod.pod.get("status") or {}
    made = {each["name"]: each for each in status.get("resourceClaimStatuses") or ()}
    found = []
    for each in wanted:
        name = each.get("resourceClaimName")
        if name is None:
            if each["name"] not in made:
                raise _NotThere(f'pod "{pod.key}": ResourceClaim not created yet')
            name = made[each["name"]].get("resourceClaimName")
            if name is None:
                continue  # it was decided that none is needed
        claim = devices.claims.get((pod.namespace, name))
        if claim is None:
            raise _NotThere(f"could not find v1.ResourceClaim {quote(f'{pod.namespace}/{name}')}")
        if "deletionTimestamp" in claim["metadata"]:
            raise _NotThere(f"resourceclaim {quote(name)} is being deleted")
        if each.get("resourceClaimName") is None and not is_for(claim, pod.pod):
            raise _NotThere(f"ResourceClaim {key(claim)} was not created for Pod {pod.key} (Pod is not owner)")
        found.append(claim)
    return found


def hold(columns: Columns, pod: PodInfo) -> str | None:
    """A pod is not tried before all its claims are there."""
    try:
        _claims(columns.devices, pod)
    except _NotThere as error:
        return str(error)
    return None


def admit(columns: Columns, pod: PodInfo) -> str | None:
    """Claims must be there, not be given to another pod just now, and ask for classes that exist."""
    devices = columns.devices
    try:
        claims = _claims(devices, pod)
    except _NotThere as error:
        return str(error)
    for claim in claims:
        if allocation(claim):
            continue
        if devices.promised(claim):
            return f"resource claim {key(claim)} is in the process of being allocated"
        for name, wanted in _classes(claim):
            if wanted not in devices.classes:
                return f"request {name}: device class {wanted} does not exist"
    return None


def _classes(claim: Object) -> Sequence[tuple[str, str]]:
    """Requests and the classes that they name."""
    found = []
    for request in (claim["spec"].get("devices") or {}).get("requests") or ():
        if request.get("exactly") is not None:
            found.append((request["name"], request["exactly"].get("deviceClassName") or ""))
        found += [
            (f"{request['name']}/{each['name']}", each.get("deviceClassName") or "")
            for each in request.get("firstAvailable") or ()
        ]
    return found


@dataclass(slots=True)
class _Way:
    """How the claims that wait are allocated on a node; the last may be that of extended resources, for containers."""

    search: Allocator
    claims: Sequence[Object]
    uses: Sequence[Object] = ()


Found = _Way | str
"""How, or why not."""


@dataclass(slots=True)
class _Work:
    """What was worked out for one pod, while nothing changes: by node, and once for nodes that reach the same."""

    about: tuple[Any, ...]
    claims: list[Object]
    waiting: list[Object]  # of those, the ones to allocate
    extended: Object | None = None  # the claim for extended resources, which is none of the others
    resources: Sequence[str] = ()  # that it is for, where nodes have none of their own
    steps: int = MOST_STEPS  # of a search on one node
    nodes: dict[str, Found] = field(default_factory=dict)
    alike: dict[tuple[Slice, ...], tuple[tuple[int, ...], Found]] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)  # uids of claims whose devices some node cannot reach


def _work(columns: Columns, pod: PodInfo, steps: int = MOST_STEPS) -> _Work | None:
    """The pod's claims and what is known of them; None for a pod without any."""
    devices = columns.devices
    resources = extended.wanted(pod, devices.by_resource)
    if not resources and not pod.pod["spec"].get("resourceClaims"):
        return None
    about = (pod.uid, pod.pod, devices.changes, columns.changes)
    memo: _Work | None = devices.memo
    if memo is not None and all(one is other or one == other for one, other in zip(memo.about, about, strict=True)):
        return memo
    try:
        claims = _claims(devices, pod)
    except _NotThere:
        return None
    waiting = [each for each in claims if not allocation(each)]
    own = (devices.extended_claim(pod.pod) or extended.new_claim(pod)) if resources else None
    devices.memo = memo = _Work(about, claims, waiting, own, resources, steps)
    if not resources:
        memo.alike = devices.outcomes(msgspec.json.encode([each["spec"] for each in waiting]))
    return memo


def narrow(columns: Columns, pod: PodInfo, left: Mask, patience: float, steps: int = MOST_STEPS) -> Sequence[Rejection]:
    """Refuse nodes that cannot reach what was given, or where not everything can be had. Raises PluginError."""
    work = _work(columns, pod, steps)
    if work is None or not (work.claims or work.resources):
        return ()
    reasons: dict[str, Mask] = {}

    def refuse(row: int, reason: str) -> None:
        reasons.setdefault(reason, np.zeros(len(left), np.bool_))[row] = True

    reached = _reached(columns, work, patience)
    for row in (int(each) for each in np.flatnonzero(left)):
        name = columns.names[row]
        found = _on_node(columns, work, pod, name)
        if isinstance(found, str):
            refuse(row, found)
            continue
        away = [claim for claim, mask in reached if not mask[row]]
        if away:
            work.lost |= {claim["metadata"]["uid"] for claim in away}
            refuse(row, _ELSEWHERE)
    return [Rejection(mask, reason, resolvable=False) for reason, mask in reasons.items()]


def _reached(columns: Columns, work: _Work, patience: float) -> list[tuple[Object, Mask]]:
    """For claims that were allocated: the nodes from which what they have can be used."""
    found = []
    for claim in work.claims:
        given = allocation(claim)
        if given is None:
            continue
        state = readiness(claim, patience, columns.devices.clock.now())
        if state not in ("", "waiting"):
            found.append((claim, np.zeros(len(columns.live), np.bool_)))
        elif (selector := given.get("nodeSelector")) is not None:
            found.append((claim, node_affinity.any_of(columns, selector.get("nodeSelectorTerms") or ())))
    return found


def _on_node(columns: Columns, work: _Work, pod: PodInfo, name: str) -> Found | None:
    """How the claims that wait can be allocated on a node, or why not; None: nothing waits. Raises PluginError."""
    row = columns.rows[name]
    lacking = tuple(each for each in work.resources if not columns.resource(columns.allocatable, each)[row])
    if not work.waiting and not lacking:
        return None
    found = work.nodes.get(name)
    if found is None:
        node = columns.node(name) or {"metadata": {"name": name}}
        slices, pools = columns.devices.pools(node)
        found = None if lacking else _known(columns.devices, work, slices)
        if found is None:
            found = _way(columns.devices, work, pod, lacking, pools, node)
            if not lacking and not any(each.per_device for each in slices):  # of one, nodes may reach different devices
                work.alike[slices] = (columns.devices.stamp(slices), found)
        work.nodes[name] = found
    return found


def _known(devices: Devices, work: _Work, slices: tuple[Slice, ...]) -> Found | None:
    """What another node that reaches the same slices was told, or this one, for a pod alike."""
    stamp, found = work.alike.get(slices, (None, None))
    if found is None or stamp != devices.stamp(slices):
        return None
    return replace(found, claims=work.waiting) if isinstance(found, _Way) else found


def _way(
    devices: Devices, work: _Work, pod: PodInfo, lacking: Sequence[str], pools: Sequence[Pool], node: Object
) -> Found:
    claims, uses = work.waiting, []
    if lacking and work.extended is not None:
        if (work.extended["spec"].get("devices") or {}).get("requests"):
            return _LEFT  # of an attempt that failed; `rescue` deletes it
        requests, uses = extended.requests(pod.pod, lacking, devices.by_resource)
        claims = [*claims, {**work.extended, "spec": {"devices": {"requests": requests}}}]
    try:
        search = Allocator(claims, pools, devices, devices.classes, node)
        return _Way(search, claims, uses) if search.run(work.steps) else _CANNOT
    except InvalidPools as error:
        return str(error)
    except TimedOut as error:
        raise PluginError(_NAME, f"node {node['metadata']['name']}: {error}") from error
    except AllocationError as error:
        raise PluginError(_NAME, str(error)) from error


def score(columns: Columns, pod: PodInfo, feasible: Mask, patience: float) -> Scores | None:
    """Of the ways to satisfy a request, the first are the best."""
    work = _work(columns, pod)
    if work is None or not any(_lists(claim) for claim in work.claims):
        return None
    raw = np.zeros(len(feasible), np.float64)
    fixed = sum(_rank(claim, _names(allocation(claim))) for claim in work.claims if allocation(claim))
    for row in (int(each) for each in np.flatnonzero(feasible)):
        found = _on_node(columns, work, pod, columns.names[row])
        raw[row] = fixed
        if isinstance(found, _Way):
            for claim, given in zip(found.claims, found.search.given, strict=True):
                raw[row] += _rank(claim, {each.request.name for each in given})
    return normalized(raw, feasible)


def _lists(claim: Object) -> Sequence[Object]:
    requests = (claim["spec"].get("devices") or {}).get("requests") or ()
    return [each for each in requests if each.get("firstAvailable")]


def _names(given: Object | None) -> set[str]:
    return {each["request"] for each in ((given or {}).get("devices") or {}).get("results") or ()}


def _rank(claim: Object, chosen: set[str]) -> int:
    return sum(
        _MOST_WAYS - at
        for request in _lists(claim)
        for at, each in enumerate(request["firstAvailable"])
        if f"{request['name']}/{each['name']}" in chosen
    )


def reserve(columns: Columns, pod: PodInfo, node: str, patience: float) -> Reservation | None:
    """Promise what was found for the node to the claims."""
    work = _work(columns, pod)
    if work is None or not (work.claims or work.resources):
        return None
    found = _on_node(columns, work, pod, node)
    if isinstance(found, str):
        raise PluginError(_NAME, "claim allocation not found for node")
    promises, uses = [], ()
    if found is not None:
        search, uses = found.search, found.uses
        promises = [
            Promise(claim, result(claim, search.given[at], search.ways(at), node, _identifier))
            for at, claim in enumerate(found.claims)
        ]
    for each in promises:
        columns.devices.promise(each.claim, each.given)
    claims = [*work.claims, promises[-1].claim] if uses else work.claims
    return Taken(columns.devices, pod, node, claims, promises, patience, uses) if claims else None


def _identifier() -> str:
    return str(uuid.uuid4())


def rescue(columns: Columns, pod: PodInfo, patience: float) -> Rescue:
    """A pod that fits nowhere gives up devices that nobody else uses and that keep it from nodes."""
    work = _work(columns, pod)
    if work is None or not (work.claims or work.resources):
        return Rescue("no new claims to deallocate")
    for claim in work.claims:
        users = (claim.get("status") or {}).get("reservedFor") or []
        alone = not users or (len(users) == 1 and reserved_for(claim, pod.pod))
        if claim["metadata"]["uid"] in work.lost and alone:
            return Rescue("deallocation of ResourceClaim completed", partial(deallocate, claim=claim))
    if work.extended is not None and work.extended["metadata"]["name"] != extended.UNNAMED:
        return Rescue("deletion of ResourceClaim completed", partial(delete, claim=work.extended))
    return Rescue("still not schedulable")


# What may help ---------------------------------------------------------------------------------------------------


def _of_claim(columns: Columns, pod: PodInfo, event: Event) -> bool:
    """A claim lost its devices, or one of the pod's own came or changed."""
    try:
        own = _claims(columns.devices, pod)
    except _NotThere:
        return False
    if event.new is None:
        return bool(event.old and allocation(event.old))
    if event.old is not None and allocation(event.old) and not allocation(event.new):
        return True
    if all(each["metadata"]["uid"] != event.new["metadata"]["uid"] for each in own):
        return False
    return event.old is None or (event.old.get("status") or {}) != (event.new.get("status") or {})


def _of_pod(columns: Columns, pod: PodInfo, event: Event) -> bool:
    """A pod that was promised devices is not bound after all."""
    return event.pod is not None and bool(event.pod.pod["spec"].get("resourceClaims"))


_HINTS: Mapping[Kind, Hint] = {
    "device claim": _of_claim,
    "device class": always,
    "devices": always,
    "node added": always,
    "node labels": always,
    "node resources": always,
    "pod freed": _of_pod,
}
