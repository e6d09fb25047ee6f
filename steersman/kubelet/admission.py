"""Whether this node can take a pod that was given to it.

Pure. Owns the last check before a pod runs; the scheduler made the first. Called by `agent` when it first sees a pod.
Source: kubelet admission (GeneralPredicates); reasons and messages are the original's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from steersman.api.resource import Object
from steersman.client import nodefit
from steersman.kubelet import podspec, resources


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why not: the pod fails with this reason and message."""

    reason: str
    message: str


UNSUITED = Refusal("NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector")


def admit(pod: Object, others: Sequence[Object], allocatable: Mapping[str, str], node: Object) -> Refusal | None:
    """None when the pod fits beside `others`, the active pods of this `node`."""
    if not nodefit.matches(pod["spec"], node):
        return UNSUITED
    if set(_host_ports(pod)) & {port for each in others for port in _host_ports(each)}:
        return Refusal(
            "NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
        )
    most = resources.whole(allocatable.get("pods", "110"))
    if len(others) + 1 > most:
        return _short("pods", 1, len(others), most)
    for name in _asked(pod):
        if name not in allocatable and not name.startswith(("cpu", "memory", "ephemeral-storage")):
            continue
        requested = resources.pod_total(pod, name, "requests") or 0
        if not requested or name not in allocatable:
            continue
        capacity = (resources.milli if name == "cpu" else resources.whole)(allocatable[name])
        used = sum(resources.pod_total(each, name, "requests") or 0 for each in others)
        if requested + used > capacity:
            return _short(name, requested, used, capacity)
    return None


def _asked(pod: Object) -> Iterable[str]:
    names: dict[str, None] = {}
    for _, container in podspec.every_container(pod):
        names.update(dict.fromkeys(resources.requests(container)))
    names.update(dict.fromkeys((pod["spec"].get("resources") or {}).get("requests") or {}))
    return names


def _short(name: str, requested: int, used: int, capacity: int) -> Refusal:
    text = f"Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
    return Refusal(f"OutOf{name}", text)


def _host_ports(pod: Object) -> Iterable[tuple[str, str, int]]:
    for container in [*podspec.init_containers(pod), *podspec.containers(pod)]:
        for port in container.get("ports") or ():
            if port.get("hostPort"):
                yield port.get("hostIP") or "0.0.0.0", port.get("protocol") or "TCP", int(port["hostPort"])
