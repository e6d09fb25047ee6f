"""What the scheduler needs of one pod, worked out once.

Owns `PodInfo` and the reading of a pod's scheduling fields. Called when a pod is first seen or changes. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from steersman.api import labels, pods
from steersman.api.quantity import milli, whole
from steersman.api.resource import Object
from steersman.scheduler.configuration import DEFAULT_SCHEDULER

MOST = 2**53  # of anything: a thousand times as much still adds up in a column
DEFAULT_CPU = 100  # millicores: what a container without requests counts for when nodes are scored
DEFAULT_MEMORY = 200 * 1024 * 1024


class Taint(NamedTuple):
    """A node's taint."""

    key: str
    value: str
    effect: str


class HostPort(NamedTuple):
    """A port of the node; `ip` is 0.0.0.0 for all addresses."""

    protocol: str
    ip: str
    port: int


@dataclass(frozen=True, slots=True)
class Peers:
    """The pods that a term means: those that `pods` selects in namespaces chosen by name or by their labels."""

    namespaces: frozenset[str]
    by_labels: labels.Selector
    pods: labels.Selector


@dataclass(frozen=True, slots=True)
class Term:
    """Pods, and the node label whose values are the domains in which they are near."""

    peers: Peers
    key: str


Weighted = tuple[Term, int]


@dataclass(frozen=True, slots=True)
class PodAffinity:
    """Which pods a pod wants near it or far from it; anti-affinity has its weights below zero."""

    near: tuple[Term, ...] = ()
    far: tuple[Term, ...] = ()
    preferred: tuple[Weighted, ...] = ()


@dataclass(frozen=True, slots=True)
class Spread:
    """One topologySpreadConstraint."""

    key: str
    max_skew: int
    hard: bool
    min_domains: int
    honors_affinity: bool
    honors_taints: bool
    peers: Peers


NO_AFFINITY = PodAffinity()


class PodInfo(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """`requests` and `nonzero` are in column units (millicores, bytes); requests include `pods`: 1.

    A Struct, which is made several times as fast as a frozen dataclass: one or two of them for every pod.
    """

    uid: str
    namespace: str
    name: str
    priority: int
    created: str
    requests: Mapping[str, int]
    nonzero: Mapping[str, int]
    node_name: str
    node_selector: Mapping[str, str]
    required_terms: Sequence[Mapping[str, Any]] | None
    preferred_terms: Sequence[Mapping[str, Any]]
    tolerations: Sequence[Mapping[str, Any]]
    ports: Sequence[HostPort]
    gates: Sequence[str]
    nominated: str
    labels: Mapping[str, str]
    deleting: bool
    affinity: PodAffinity
    spread: Sequence[Spread]
    scheduler: str
    claims: Sequence[tuple[str, bool]]  # names, and whether they are made for the pod (generic ephemeral volumes)
    pod: Object

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"


def read(pod: Object) -> PodInfo:
    """The scheduling facts of a pod."""
    meta, spec = pod["metadata"], pod["spec"]
    wishes = spec.get("affinity") or {}
    affinity = wishes.get("nodeAffinity") or {}
    own_labels = meta.get("labels") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    requests, nonzero = _amounts(_asked(spec))
    return PodInfo(
        uid=meta["uid"],
        namespace=meta["namespace"],
        name=meta["name"],
        priority=spec.get("priority") or 0,
        created=meta.get("creationTimestamp", ""),
        requests=requests,
        nonzero=nonzero,
        node_name=spec.get("nodeName", ""),
        node_selector=spec.get("nodeSelector") or {},
        required_terms=None if required is None else required.get("nodeSelectorTerms") or [],
        preferred_terms=affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or [],
        tolerations=spec.get("tolerations") or [],
        ports=_host_ports(spec),
        gates=[gate["name"] for gate in spec.get("schedulingGates") or []],
        nominated=(pod.get("status") or {}).get("nominatedNodeName", ""),
        labels=own_labels,
        deleting="deletionTimestamp" in meta,
        affinity=_pod_affinity(wishes, meta["namespace"], own_labels),
        spread=[_spread(each, meta["namespace"], own_labels) for each in spec.get("topologySpreadConstraints") or ()],
        scheduler=spec.get("schedulerName") or DEFAULT_SCHEDULER,
        claims=_claims(spec, meta["name"]),
        pod=pod,
    )


def _pod_affinity(wishes: Mapping[str, Any], namespace: str, own: Mapping[str, str]) -> PodAffinity:
    near, far = wishes.get("podAffinity") or {}, wishes.get("podAntiAffinity") or {}
    if not near and not far:
        return NO_AFFINITY
    required, preferred = (
        "requiredDuringSchedulingIgnoredDuringExecution",
        "preferredDuringSchedulingIgnoredDuringExecution",
    )
    return PodAffinity(
        tuple(_term(each, namespace, own) for each in near.get(required) or ()),
        tuple(_term(each, namespace, own) for each in far.get(required) or ()),
        tuple(
            (_term(each["podAffinityTerm"], namespace, own), sign * each["weight"])
            for side, sign in ((near, 1), (far, -1))
            for each in side.get(preferred) or ()
        ),
    )


def _term(term: Mapping[str, Any], namespace: str, own: Mapping[str, str]) -> Term:
    """Source: framework.AffinityTerm. Neither namespaces nor a selector of them means the pod's own."""
    chosen, by_labels = term.get("namespaces") or [], term.get("namespaceSelector")
    named = frozenset(chosen) if chosen or by_labels is not None else frozenset([namespace])
    pods_ = _narrowed(term, own)
    return Term(Peers(named, labels.from_object(by_labels), pods_), term["topologyKey"])


def _narrowed(term: Mapping[str, Any], own: Mapping[str, str]) -> labels.Selector:
    """A term's label selector with its matchLabelKeys and mismatchLabelKeys filled in from the pod (KEP-3633)."""
    selector = labels.from_object(term.get("labelSelector"))
    if selector.requirements is None:
        return selector
    more = [
        labels.Requirement(key, operator, (own[key],))
        for name, operator in (("matchLabelKeys", "in"), ("mismatchLabelKeys", "notin"))
        for key in term.get(name) or ()
        if key in own
    ]
    return labels.Selector([*selector.requirements, *more]) if more else selector


def _spread(constraint: Mapping[str, Any], namespace: str, own: Mapping[str, str]) -> Spread:
    return Spread(
        key=constraint["topologyKey"],
        max_skew=constraint["maxSkew"],
        hard=constraint.get("whenUnsatisfiable", "DoNotSchedule") == "DoNotSchedule",
        min_domains=constraint.get("minDomains") or 1,
        honors_affinity=constraint.get("nodeAffinityPolicy", "Honor") == "Honor",
        honors_taints=constraint.get("nodeTaintsPolicy", "Ignore") == "Honor",
        peers=Peers(frozenset([namespace]), labels.NOTHING, _narrowed(constraint, own)),
    )


def _asked(spec: Mapping[str, Any]) -> bytes:
    """What a spec says of resources, without all else: equal for pods alike."""
    containers = [(each.get("resources"), each.get("restartPolicy")) for each in spec.get("containers") or ()]
    first = [(each.get("resources"), each.get("restartPolicy")) for each in spec.get("initContainers") or ()]
    return msgspec.json.encode((containers, first, spec.get("resources"), spec.get("overhead")))


@lru_cache(maxsize=1024)
def _amounts(asked: bytes) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """`PodInfo.requests` and `nonzero`: the same objects for pods alike, not to be changed."""
    containers, first, resources, overhead = msgspec.json.decode(asked)
    spec = {
        "containers": [{"resources": own, "restartPolicy": policy} for own, policy in containers],
        "initContainers": [{"resources": own, "restartPolicy": policy} for own, policy in first],
        "resources": resources,
        "overhead": overhead,
    }
    requests = {name: amount_of(name, amount) for name, amount in pods.requests({"spec": spec}).items()}
    return {**requests, "pods": 1}, _nonzero(spec, requests)


def amount_of(resource: str, quantity: Any) -> int:
    """A quantity in the unit of its column: millicores for cpu, else whole units, rounded up; at most `MOST`."""
    return min(milli(quantity) if resource == "cpu" else whole(quantity), MOST)


def _nonzero(spec: Mapping[str, Any], requests: Mapping[str, int]) -> dict[str, int]:
    """Requests for scoring: containers that ask for nothing count with a default (original: non_zero.go)."""
    cpu, memory = requests.get("cpu", 0), requests.get("memory", 0)
    for container in spec.get("containers", ()):
        asked = (container.get("resources") or {}).get("requests") or {}
        cpu += DEFAULT_CPU * ("cpu" not in asked)
        memory += DEFAULT_MEMORY * ("memory" not in asked)
    return {"cpu": cpu, "memory": memory}


def _host_ports(spec: Mapping[str, Any]) -> list[HostPort]:
    return [
        HostPort(port.get("protocol") or "TCP", port.get("hostIP") or "0.0.0.0", port["hostPort"])
        for container in spec.get("containers", ())
        for port in container.get("ports") or ()
        if port.get("hostPort")
    ]


def _claims(spec: Mapping[str, Any], pod: str) -> Sequence[tuple[str, bool]]:
    found = []
    for volume in spec.get("volumes") or ():
        if "persistentVolumeClaim" in volume:
            found.append((volume["persistentVolumeClaim"]["claimName"], False))
        elif "ephemeral" in volume:
            found.append((f"{pod}-{volume['name']}", True))
    return found


def is_ended(pod: Object) -> bool:
    """Whether the pod uses no resources any more."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
