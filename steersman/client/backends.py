"""Which pods stand behind a Service, and on which ports.

Owns pure rules that the controllers of Endpoints and EndpointSlices share. Source: kubernetes'
staging/src/k8s.io/endpointslice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from steersman.api import labels, pods
from steersman.api.labels import Selector
from steersman.api.resource import PODS, SERVICES, Object
from steersman.client.controller import Context, Key, key_of
from steersman.client.selecting import BY_LABEL, BY_SELECTOR, file_by_label, file_by_selector, selected, selectors

HEADLESS = "service.kubernetes.io/headless"


def selector_of(service: Object) -> Selector:
    """The Service's selector; one without any selects nothing."""
    chosen = service["spec"].get("selector")
    return labels.from_set(chosen) if chosen else labels.NOTHING


INDEXES = {PODS: {BY_LABEL: file_by_label}, SERVICES: {BY_SELECTOR: file_by_selector(selector_of)}}
"""What `services_of` and `backends` need."""


def services_of(context: Context, pod: Object) -> Iterable[Key]:
    """The Services that select a pod."""
    return map(key_of, selectors(context.informer(SERVICES), pod, selector_of))


def backends(context: Context, service: Object, *, terminating: bool) -> Iterator[Object]:
    """The Service's pods that have an address and have not ended, those that terminate only if asked for."""
    found = selected(context.informer(PODS), service["metadata"]["namespace"], selector_of(service))
    for pod in sorted(found, key=lambda each: str(each["metadata"]["name"])):
        if pods.is_terminal(pod):
            continue
        if pod["metadata"].get("deletionTimestamp") and not terminating:
            continue
        if addresses(pod):
            yield pod


def addresses(pod: Object) -> list[str]:
    """The pod's addresses."""
    status = pod.get("status") or {}
    return [each["ip"] for each in status.get("podIPs") or ()] or ([status["podIP"]] if status.get("podIP") else [])


def is_ipv6(address: str) -> bool:
    """Whether an address is of the family IPv6."""
    return ":" in address


def find_port(pod: Object, service_port: Object) -> int | None:
    """The number behind a Service's port; None when the pod has no port of that name."""
    wanted = service_port.get("targetPort", service_port["port"])
    if isinstance(wanted, int):
        return wanted or int(service_port["port"])
    if not wanted:
        return int(service_port["port"])
    protocol = service_port.get("protocol") or "TCP"
    sidecars = [each for each in pods.init_containers(pod) if pods.is_sidecar(each)]
    for container in [*pods.containers(pod), *sidecars]:
        for port in container.get("ports") or ():
            if port.get("name") == wanted and (port.get("protocol") or "TCP") == protocol:
                return int(port["containerPort"])
    return None


def hostname(pod: Object, service: Object) -> str:
    """The host name under which DNS knows the pod through this Service; empty when it has none."""
    same = pod["spec"].get("subdomain") == service["metadata"]["name"]
    return (pod["spec"].get("hostname") or "") if same else ""


def target_of(pod: Object) -> Object:
    """The reference to a pod in an endpoint."""
    meta = pod["metadata"]
    return {"kind": "Pod", "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]}


def is_headless(service: Object) -> bool:
    """Whether the Service has no address of its own."""
    return service["spec"].get("clusterIP") in (None, "", "None")
