"""What every cluster has from its first second: namespaces, roles, priority classes, the kubernetes service.

Owns the list. Written through the ordinary pipeline at each start where missing. Called by `cluster`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from steersman.api.errors import ApiError
from steersman.api.resource import (
    CLUSTERROLEBINDINGS,
    CLUSTERROLES,
    CONFIGMAPS,
    ENDPOINTSLICES,
    NAMESPACES,
    PRIORITYCLASSES,
    ROLEBINDINGS,
    ROLES,
    SERVICES,
    Object,
    Resource,
)
from steersman.apiserver.authz.policy import cluster_role_bindings, cluster_roles, namespace_roles, role_bindings
from steersman.apiserver.cache import encode
from steersman.apiserver.call import Call, User
from steersman.apiserver.negotiate import DEFAULT
from steersman.apiserver.request import Query, RequestInfo
from steersman.apiserver.verbs.write import create_object, update_object
from steersman.lib.clock import rfc3339
from steersman.lib.http.messages import Request

STORAGECLASSES = Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", False)
SERVICECIDRS = Resource("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", False)
SYSTEM = User("system:apiserver", ("system:masters", "system:authenticated"))
_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
_AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
_CRITICAL = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}

_WHERE = {
    "system-node-critical": "not be moved from their current node",
    "system-cluster-critical": "run in the cluster, but can be moved to another node if necessary",
}


_ITSELF = (("user-agent", "kube-apiserver"),)


def internal_call(server: Any, resource: Resource, verb: str, namespace: str = "", name: str = "") -> Call:
    """A call of the API server to itself."""
    kind = server.registry.find(resource.group, resource.plural)
    info = RequestInfo("", verb, True, resource.group, resource.version, resource.plural, "", namespace, name)
    return Call(
        server.services, Request(verb, "", headers=_ITSELF), info, Query(""), kind, resource.version, SYSTEM, DEFAULT
    )


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


async def bootstrap(
    server: Any,
    *,
    service_ip: str,
    port: int,
    dns: str,
    resolvers: list[str],
    authentication: Object | None = None,
    provisioner: str = "",
) -> None:
    """Make what is missing. Where the API server is, `masters.py` says.

    `resolvers`: where DNS listens; `authentication`: whom extension API servers shall believe.
    `provisioner`: who makes volumes of the default StorageClass, if anybody does.
    """
    for name in _NAMESPACES:
        await ensure(server, NAMESPACES, {"metadata": {"name": name}})
    await _rbac(server)
    for name, value in _CRITICAL.items():
        text = f"Used for system critical pods that must {_WHERE[name]}."
        await ensure(server, PRIORITYCLASSES, {"metadata": {"name": name}, "value": value, "description": text})
    if provisioner:
        default = {"storageclass.kubernetes.io/is-default-class": "true"}
        made = {"metadata": {"name": "standard", "annotations": default}, "provisioner": provisioner}
        await ensure(server, STORAGECLASSES, {**made, "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"})
    if authentication:
        await publish_authentication(server, authentication)
    await _service_cidr(server)
    await _kubernetes_service(server, service_ip, port)
    if resolvers:
        await _dns_service(server, dns, resolvers)


async def publish_authentication(server: Any, data: Mapping[str, str]) -> None:
    """Tell extension API servers whom to believe."""
    meta = {"name": "extension-apiserver-authentication", "namespace": "kube-system"}
    await reconcile(server, CONFIGMAPS, {"metadata": meta, "data": data})


async def _rbac(server: Any) -> None:
    """Roles first, then what binds them; all of a sort at once, so that the store commits them together."""
    for resource, objects in (
        (CLUSTERROLES, cluster_roles()),
        (ROLES, namespace_roles()),
        (CLUSTERROLEBINDINGS, cluster_role_bindings()),
        (ROLEBINDINGS, role_bindings()),
    ):
        await asyncio.gather(*(_keep(server, resource, obj) for obj in objects))


async def _keep(server: Any, resource: Resource, wanted: Object) -> None:
    """Create a bootstrap object, or give one that is there what a newer release adds; what others added stays.

    Source: component-helpers' auth/rbac/reconciliation.
    """
    meta = wanted["metadata"]
    kind = server.registry.find(resource.group, resource.plural)
    item = server.storage.find(kind, meta.get("namespace", ""), meta["name"]) if kind is not None else None
    if item is None:
        await ensure(server, resource, wanted)
        return
    current = item.obj()
    if (current["metadata"].get("annotations") or {}).get(_AUTOUPDATE) == "false":
        return
    merged = {key: _with(current.get(key), wanted[key]) for key in ("rules", "subjects") if key in wanted}
    if "aggregationRule" in wanted:  # the rules are then the controller's
        merged = {"aggregationRule": current.get("aggregationRule") or wanted["aggregationRule"]}
    if any(merged[key] != current.get(key) for key in merged):
        call = internal_call(server, resource, "update", meta.get("namespace", ""), meta["name"])
        await update_object(call, item, lambda obj: {**obj, **merged}, retry=True)


def _with(present: Iterable[Object] | None, wanted: Iterable[Object]) -> list[Object]:
    have = list(present or ())
    return [*have, *(each for each in wanted if each not in have)]


async def _service_cidr(server: Any) -> None:
    """The ServiceCIDR that this API server gives addresses from, which is Ready and stays. Source: KEP-1880."""
    networks = server.services.extras.get("service_networks")
    if not networks:
        return
    meta = {"name": "kubernetes", "finalizers": ["networking.k8s.io/service-cidr-finalizer"]}
    await ensure(server, SERVICECIDRS, {"metadata": meta, "spec": {"cidrs": [str(network) for network in networks]}})
    kind = server.registry.find(SERVICECIDRS.group, SERVICECIDRS.plural)
    item = server.storage.find(kind, "", "kubernetes") if kind is not None else None
    if item is None or (item.obj().get("status") or {}).get("conditions"):
        return
    now = rfc3339(server.services.clock.now())
    text = "Kubernetes Service CIDR is ready"
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": now, "reason": "", "message": text}
    call = internal_call(server, SERVICECIDRS, "update", "", "kubernetes")
    call.info.subresource = "status"
    await update_object(call, item, lambda obj: {**obj, "status": {"conditions": [ready]}}, retry=True)


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
    await reconcile(server, ENDPOINTSLICES, made)


async def _kubernetes_service(server: Any, service_ip: str, port: int) -> None:
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


async def reconcile(server: Any, resource: Resource, wanted: Object) -> None:
    """Create, or set what differs."""
    meta = wanted["metadata"]
    kind = server.registry.find(resource.group, resource.plural)
    if kind is None:
        return
    item = server.storage.find(kind, meta["namespace"], meta["name"])
    if item is None:
        await ensure(server, resource, wanted)
        return
    body = {key: value for key, value in wanted.items() if key != "metadata"}
    current = item.obj()
    if all(encode(current.get(key)) == encode(value) for key, value in body.items()):
        return
    call = internal_call(server, resource, "update", meta["namespace"], meta["name"])
    await update_object(call, item, lambda obj: {**obj, **body}, retry=True)
