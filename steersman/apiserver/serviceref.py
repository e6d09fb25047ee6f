"""Where a reference to a Service leads: to its ClusterIP, or straight to what is behind it.

Owns that choice. Called for webhooks and for aggregated API servers. It opens no connection. Source: apiserver's
pkg/util/proxy (ResolveCluster, ResolveEndpoint).
"""

from __future__ import annotations

from collections.abc import Iterator

from steersman.api.resource import Object
from steersman.apiserver.call import Services

ROUTES = "routes_to_endpoints"
"""Set in `Services.extras` where nothing carries traffic to ClusterIPs: a control plane without nodes."""


class Unroutable(Exception):
    """The reference leads nowhere; the text is the original's."""


def resolve(services: Services, namespace: str, name: str, port: int) -> tuple[str, int]:
    """Host and port of a Service's port. Raises Unroutable."""
    kind = services.registry.find("", "services")
    item = services.storage.find(kind, namespace, name) if kind is not None else None
    if item is None:
        raise Unroutable(f'service "{name}" not found')
    spec = item.obj()["spec"]
    type_ = spec.get("type") or "ClusterIP"
    if type_ == "ExternalName":
        return spec.get("externalName") or "", port
    if type_ not in ("ClusterIP", "NodePort", "LoadBalancer"):
        raise Unroutable(f'unsupported service type "{type_}"')
    direct = bool(services.extras.get(ROUTES))
    if spec.get("clusterIP") == "None" and not direct:
        raise Unroutable('cannot route to service with ClusterIP "None"')
    found = next((each for each in spec.get("ports") or () if each["port"] == port), None)
    if found is None:
        raise Unroutable(f'no service port {port} found for service "{name}"')
    if not direct:
        return spec.get("clusterIP") or "", port
    wanted = found.get("name") or ""
    targets = [
        (address, number)
        for slice_ in slices_of(services, namespace, name)
        for number in port_numbers(slice_, wanted)
        for address in ready_addresses(slice_)
    ]
    if not targets:
        raise Unroutable(f'no endpoints available for service "{name}"')
    chosen: tuple[str, int] = services.random.choice(targets)
    return chosen


def slices_of(services: Services, namespace: str, name: str) -> Iterator[Object]:
    """The Service's EndpointSlices."""
    kind = services.registry.find("discovery.k8s.io", "endpointslices")
    if kind is not None:
        for _, item in services.storage.cache(kind).items(services.storage.prefix(kind, namespace)):
            if item.labels.get("kubernetes.io/service-name") == name:
                yield item.obj()


def port_numbers(slice_: Object, name: str) -> list[int]:
    """The numbers that the port of this name has in a slice."""
    return [
        int(each["port"]) for each in slice_.get("ports") or () if (each.get("name") or "") == name and each.get("port")
    ]


def ready_addresses(slice_: Object) -> list[str]:
    """The first address of each endpoint that is ready, or says nothing of it."""
    return [
        each["addresses"][0]
        for each in slice_.get("endpoints") or ()
        if (each.get("conditions") or {}).get("ready", True) is not False and each.get("addresses")
    ]
