"""What a pod is, said once: its containers, requests, QoS class, readiness.

Owns the rules about pods that several components share: defaulting, quota, scheduler, kubelet, controllers. Pure.
Amounts are canonical quantities as text; `quantity` reads them. Source: component-helpers' resource package, KEP-753
(sidecars), KEP-2837 (pod-level resources), and the documentation of pod QoS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from steersman.api import quantity
from steersman.api.resource import Object

Amounts = dict[str, str]

GUARANTEED = "Guaranteed"
BURSTABLE = "Burstable"
BEST_EFFORT = "BestEffort"

_QOS_RESOURCES = ("cpu", "memory")


def containers(pod: Object) -> list[Object]:
    """spec.containers."""
    return pod["spec"].get("containers") or []


def init_containers(pod: Object) -> list[Object]:
    """spec.initContainers, sidecars among them."""
    return pod["spec"].get("initContainers") or []


def every_container(spec: Mapping[str, Any]) -> Iterator[tuple[str, Object]]:
    """Every container of a pod spec with its path below the spec, such as `initContainers[0]`."""
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for i, container in enumerate(spec.get(field) or ()):
            yield f"{field}[{i}]", container


def is_sidecar(container: Mapping[str, Any]) -> bool:
    """An init container that keeps running beside the others."""
    return container.get("restartPolicy") == "Always"


def requests(pod: Object) -> Amounts:
    """What a node must have free for the pod: init containers first, sidecars beside, overhead on top."""
    return _effective(pod, "requests")


def limits(pod: Object) -> Amounts:
    """The most that the pod may use, where its containers say; counted as requests are."""
    return _effective(pod, "limits")


def container_totals(pod: Object, which: str) -> Amounts:
    """Requests or limits of all containers together, without pod-level resources and overhead."""
    total: dict[str, quantity.Quantity] = {}
    for container in containers(pod):
        _add(total, _amounts(container, which))
    sidecars: dict[str, quantity.Quantity] = {}
    peak: dict[str, quantity.Quantity] = {}
    for container in init_containers(pod):
        own = _amounts(container, which)
        if is_sidecar(container):
            _add(total, own)
            _add(sidecars, own)
            _raise(peak, sidecars)
        else:
            moment = dict(sidecars)
            _add(moment, own)
            _raise(peak, moment)
    _raise(total, peak)
    return {name: str(amount) for name, amount in total.items()}


def _effective(pod: Object, which: str) -> Amounts:
    spec = pod["spec"]
    total = container_totals(pod, which)
    total.update((spec.get("resources") or {}).get(which) or {})
    for name, amount in (spec.get("overhead") or {}).items():
        if which == "requests" or name in total:
            total[name] = quantity.add(total.get(name, "0"), amount)
    return total


def _amounts(container: Object, which: str) -> Mapping[str, str]:
    return (container.get("resources") or {}).get(which) or {}


def _add(total: dict[str, quantity.Quantity], more: Mapping[str, Any]) -> None:
    for name, amount in more.items():
        parsed = quantity.parse(amount) if isinstance(amount, str) else amount
        total[name] = total[name] + parsed if name in total else parsed


def _raise(total: dict[str, quantity.Quantity], least: Mapping[str, quantity.Quantity]) -> None:
    for name, amount in least.items():
        if name not in total or total[name] < amount:
            total[name] = amount


def qos_class(pod: Object) -> str:
    """Guaranteed, Burstable or BestEffort, from the spec alone."""
    spec = pod["spec"]
    sources: Iterable[Object] = (
        [spec] if spec.get("resources") is not None else [*containers(pod), *init_containers(pod)]
    )
    asked: dict[str, quantity.Quantity] = {}
    capped: dict[str, quantity.Quantity] = {}
    guaranteed = True
    for source in sources:
        wanted, allowed = _computed(source, "requests"), _computed(source, "limits")
        guaranteed = guaranteed and len(allowed) == len(_QOS_RESOURCES)
        _add(asked, wanted)
        _add(capped, allowed)
    if not asked and not capped:
        return BEST_EFFORT
    same = all(asked.get(name) == amount for name, amount in capped.items()) and len(asked) == len(capped)
    return GUARANTEED if guaranteed and same else BURSTABLE


def _computed(source: Object, which: str) -> dict[str, quantity.Quantity]:
    amounts = _amounts(source, which)
    parsed = {name: quantity.parse(amounts[name]) for name in _QOS_RESOURCES if name in amounts}
    return {name: amount for name, amount in parsed.items() if amount.nanos > 0}


def condition(obj: Object, type: str) -> Object | None:
    """The condition of that type in status.conditions."""
    found = (obj.get("status") or {}).get("conditions") or ()
    return next((each for each in found if each.get("type") == type), None)


def is_ready(pod: Object) -> bool:
    """Whether the pod's Ready condition is true."""
    return (condition(pod, "Ready") or {}).get("status") == "True"


def is_terminal(pod: Object) -> bool:
    """Whether the pod has ended for good."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def is_active(pod: Object) -> bool:
    """Whether the pod counts for its controller: neither ended nor being deleted."""
    return not is_terminal(pod) and not pod["metadata"].get("deletionTimestamp")


def host_ports(spec: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    """(protocol, address, port) of every port on the node; 0.0.0.0 for all addresses. Sidecars count."""
    chosen = [each for each in spec.get("initContainers") or () if is_sidecar(each)]
    for container in [*(spec.get("containers") or ()), *chosen]:
        for port in container.get("ports") or ():
            if port.get("hostPort"):
                yield port.get("protocol") or "TCP", port.get("hostIP") or "0.0.0.0", port["hostPort"]


def references(spec: Mapping[str, Any], visit: Callable[[str, str], None]) -> None:
    """Call `visit(kind, name)` for every Secret and ConfigMap that a pod spec names."""
    for secret in spec.get("imagePullSecrets") or ():
        visit("Secret", secret.get("name", ""))
    for _, container in every_container(spec):
        for source in container.get("envFrom") or ():
            _visit_pair(source, visit)
        for variable in container.get("env") or ():
            chosen = variable.get("valueFrom") or {}
            _visit_pair({"configMapRef": chosen.get("configMapKeyRef"), "secretRef": chosen.get("secretKeyRef")}, visit)
    for volume in spec.get("volumes") or ():
        if secret := volume.get("secret"):
            visit("Secret", secret.get("secretName", ""))
        _visit_pair({"configMapRef": volume.get("configMap")}, visit)
        for source in (each for each in volume.values() if isinstance(each, Mapping)):
            _visit_pair({"secretRef": source.get("secretRef") or source.get("nodePublishSecretRef")}, visit)
        if secret := (volume.get("azureFile") or {}).get("secretName"):
            visit("Secret", secret)
        for source in (volume.get("projected") or {}).get("sources") or ():
            _visit_pair({"configMapRef": source.get("configMap"), "secretRef": source.get("secret")}, visit)


def _visit_pair(source: Mapping[str, Any], visit: Callable[[str, str], None]) -> None:
    if found := source.get("configMapRef"):
        visit("ConfigMap", found.get("name", ""))
    if found := source.get("secretRef"):
        visit("Secret", found.get("name", ""))
