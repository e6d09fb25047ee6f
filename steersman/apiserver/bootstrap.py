"""What every cluster has from its first second: namespaces, roles, priority classes, the kubernetes service.

Owns the list. Written through the ordinary pipeline at each start where missing. Called by `cluster`.
"""

from __future__ import annotations

from typing import Any

from steersman.api.errors import ApiError
from steersman.api.resource import (
    CLUSTERROLEBINDINGS,
    CLUSTERROLES,
    ENDPOINTS,
    ENDPOINTSLICES,
    NAMESPACES,
    PRIORITYCLASSES,
    SERVICES,
    Object,
    Resource,
)
from steersman.apiserver.authz.policy import cluster_role_bindings, cluster_roles
from steersman.apiserver.cache import encode
from steersman.apiserver.call import Call, User
from steersman.apiserver.negotiate import DEFAULT
from steersman.apiserver.request import Query, RequestInfo
from steersman.apiserver.verbs.write import create_object, update_object
from steersman.lib.http.messages import Request

SYSTEM = User("system:apiserver", ("system:masters", "system:authenticated"))
_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
_CRITICAL = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}

_WHERE = {
    "system-node-critical": "not be moved from their current node",
    "system-cluster-critical": "run in the cluster, but can be moved to another node if necessary",
}


def internal_call(server: Any, resource: Resource, verb: str, namespace: str = "", name: str = "") -> Call:
    """A call of the API server to itself."""
    kind = server.registry.find(resource.group, resource.plural)
    info = RequestInfo("", verb, True, resource.group, resource.version, resource.plural, "", namespace, name)
    return Call(server.services, Request(verb, ""), info, Query(""), kind, resource.version, SYSTEM, DEFAULT)


async def ensure(server: Any, resource: Resource, obj: Object) -> None:
    """Create an object unless it is there."""
    meta = obj["metadata"]
    namespace = meta.get("namespace", "")
    kind = server.registry.find(resource.group, resource.plural)
    if kind is None or server.storage.find(kind, namespace, meta["name"]) is not None:
        return
    obj = {"apiVersion": resource.api_version, "kind": resource.kind, **obj}
    try:
        await create_object(internal_call(server, resource, "create", namespace), obj)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise


async def bootstrap(server: Any, *, service_ip: str, address: str, port: int, dns: str, resolvers: list[str]) -> None:
    """Make what is missing; keep the kubernetes endpoints true. `resolvers`: where DNS listens."""
    for name in _NAMESPACES:
        await ensure(server, NAMESPACES, {"metadata": {"name": name}})
    for role in cluster_roles():
        await ensure(server, CLUSTERROLES, role)
    for binding in cluster_role_bindings():
        await ensure(server, CLUSTERROLEBINDINGS, binding)
    for name, value in _CRITICAL.items():
        text = f"Used for system critical pods that must {_WHERE[name]}."
        await ensure(server, PRIORITYCLASSES, {"metadata": {"name": name}, "value": value, "description": text})
    await _kubernetes_service(server, service_ip, address, port)
    if resolvers:
        await _dns_service(server, dns, resolvers)


async def _dns_service(server: Any, address: str, resolvers: list[str]) -> None:
    """kube-dns: its endpoints are the nodes themselves, so it selects no pods."""
    labels = {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}
    meta = {"name": "kube-dns", "namespace": "kube-system", "labels": labels}
    ports = [("dns", "UDP"), ("dns-tcp", "TCP")]
    spec = {
        "clusterIP": address,
        "clusterIPs": [address],
        "ports": [{"name": name, "port": 53, "protocol": protocol, "targetPort": 53} for name, protocol in ports],
    }
    await ensure(server, SERVICES, {"metadata": meta, "spec": spec})
    slice_meta = {**meta, "labels": {"kubernetes.io/service-name": "kube-dns"}}
    made = {
        "metadata": slice_meta,
        "addressType": "IPv4",
        "endpoints": [{"addresses": [each], "conditions": {"ready": True}} for each in resolvers],
        "ports": [{"name": name, "port": 53, "protocol": protocol} for name, protocol in ports],
    }
    await _reconcile(server, ENDPOINTSLICES, made)


async def _kubernetes_service(server: Any, service_ip: str, address: str, port: int) -> None:
    labels = {"component": "apiserver", "provider": "kubernetes"}
    meta = {"name": "kubernetes", "namespace": "default", "labels": labels}
    spec = {
        "type": "ClusterIP",
        "clusterIP": service_ip,
        "clusterIPs": [service_ip],
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "sessionAffinity": "None",
        "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
    }
    await ensure(server, SERVICES, {"metadata": dict(meta), "spec": spec})
    mirror = {"endpointslice.kubernetes.io/skip-mirror": "true"}
    ports = [{"name": "https", "port": port, "protocol": "TCP"}]
    subsets = [{"addresses": [{"ip": address}], "ports": ports}]
    await _reconcile(server, ENDPOINTS, {"metadata": {**meta, "labels": mirror}, "subsets": subsets})
    if address.startswith("127."):
        return  # an EndpointSlice may not hold a loopback address
    slice_meta = {**meta, "labels": {"kubernetes.io/service-name": "kubernetes"}}
    endpoints = [{"addresses": [address], "conditions": {"ready": True}}]
    made = {"metadata": slice_meta, "addressType": "IPv4", "endpoints": endpoints, "ports": ports}
    await _reconcile(server, ENDPOINTSLICES, made)


async def _reconcile(server: Any, resource: Resource, wanted: Object) -> None:
    """Create, or set what differs."""
    meta = wanted["metadata"]
    kind = server.registry.find(resource.group, resource.plural)
    if kind is None:
        return
    item = server.storage.find(kind, meta["namespace"], meta["name"])
    if item is None:
        if resource is ENDPOINTS and wanted["subsets"][0]["addresses"][0]["ip"].startswith("127."):
            return
        await ensure(server, resource, wanted)
        return
    body = {key: value for key, value in wanted.items() if key != "metadata"}
    current = item.obj()
    if all(encode(current.get(key)) == encode(value) for key, value in body.items()):
        return
    call = internal_call(server, resource, "update", meta["namespace"], meta["name"])
    await update_object(call, item, lambda obj: {**obj, **body}, retry=True)
