"""What the scheduler needs of one pod, worked out once.

Owns `PodInfo` and the reading of a pod's scheduling fields. Called when a pod is first seen or changes. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from steersman.api import pods
from steersman.api.quantity import milli, whole
from steersman.api.resource import Object

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
class PodInfo:
    """`requests` and `nonzero` are in column units (millicores, bytes); requests include `pods`: 1."""

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
    pod: Object

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"


def read(pod: Object) -> PodInfo:
    """The scheduling facts of a pod."""
    meta, spec = pod["metadata"], pod["spec"]
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    requests = {name: milli(amount) if name == "cpu" else whole(amount) for name, amount in pods.requests(pod).items()}
    return PodInfo(
        uid=meta["uid"],
        namespace=meta["namespace"],
        name=meta["name"],
        priority=spec.get("priority") or 0,
        created=meta.get("creationTimestamp", ""),
        requests={**requests, "pods": 1},
        nonzero=_nonzero(spec, requests),
        node_name=spec.get("nodeName", ""),
        node_selector=spec.get("nodeSelector") or {},
        required_terms=None if required is None else required.get("nodeSelectorTerms") or [],
        preferred_terms=affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or [],
        tolerations=spec.get("tolerations") or [],
        ports=_host_ports(spec),
        gates=[gate["name"] for gate in spec.get("schedulingGates") or []],
        nominated=(pod.get("status") or {}).get("nominatedNodeName", ""),
        pod=pod,
    )


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


def is_ended(pod: Object) -> bool:
    """Whether the pod uses no resources any more."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
