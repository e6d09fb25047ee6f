"""What a kubelet may do: its own node, the pods bound to it, and what those pods refer to.

Source: plugin/pkg/auth/authorizer/node (graph) and the NodeRules of the RBAC bootstrap policy.
"""

from __future__ import annotations

from steersman.api import pods
from steersman.api.registry import Registry
from steersman.apiserver.request import RequestInfo
from steersman.apiserver.storage import Storage

_READ = frozenset({"get", "list", "watch"})
_RULES: dict[tuple[str, str], frozenset[str]] = {
    ("", "nodes"): frozenset({"create", "get", "list", "watch", "update", "patch"}),
    ("", "nodes/status"): frozenset({"get", "update", "patch"}),
    ("", "pods"): frozenset({"get", "list", "watch", "create", "delete"}),
    ("", "pods/status"): frozenset({"get", "update", "patch"}),
    ("", "pods/eviction"): frozenset({"create"}),
    ("", "services"): _READ,
    ("", "persistentvolumes"): _READ,
    ("", "persistentvolumeclaims"): _READ,
    ("", "events"): frozenset({"create", "update", "patch"}),
    ("events.k8s.io", "events"): frozenset({"create", "update", "patch"}),
    ("coordination.k8s.io", "leases"): frozenset({"create", "get", "update", "patch", "delete"}),
    ("authentication.k8s.io", "tokenreviews"): frozenset({"create"}),
    ("authorization.k8s.io", "subjectaccessreviews"): frozenset({"create"}),
    ("certificates.k8s.io", "certificatesigningrequests"): frozenset({"create", *_READ}),
    ("storage.k8s.io", "csinodes"): frozenset({"create", "get", "update", "patch", "delete"}),
    ("storage.k8s.io", "csidrivers"): _READ,
    ("storage.k8s.io", "volumeattachments"): frozenset({"get"}),
    ("node.k8s.io", "runtimeclasses"): _READ,
}
_REFERRED = {"secrets": "Secret", "configmaps": "ConfigMap"}


def node_may(node: str, info: RequestInfo, storage: Storage, registry: Registry) -> bool:
    """Whether the kubelet of `node` may do it."""
    if not info.is_resource:
        return False
    plural = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    if (info.group, plural) == ("", "serviceaccounts/token"):
        return info.verb == "create" and _refers(node, info.namespace, "ServiceAccount", info.name, storage, registry)
    if info.group == "" and plural in _REFERRED:
        name = info.name or info.rest
        return info.verb in _READ and _refers(node, info.namespace, _REFERRED[plural], name, storage, registry)
    if info.verb not in _RULES.get((info.group, plural), ()):
        return False
    if info.resource == "nodes" and info.verb in ("update", "patch"):
        return info.name == node
    if info.resource == "leases":
        return info.namespace == "kube-node-lease" and info.name in ("", node)
    return True


def _refers(node: str, namespace: str, kind: str, name: str, storage: Storage, registry: Registry) -> bool:
    """Whether a pod of this node mentions the object."""
    pod_kind = registry.find("", "pods")
    if pod_kind is None or not name:
        return False
    found = False

    def visit(seen_kind: str, seen_name: str) -> None:
        nonlocal found
        found = found or (seen_kind == kind and seen_name == name)

    for _, item in storage.cache(pod_kind).items(storage.prefix(pod_kind, namespace)):
        if item.field("spec.nodeName") == node:
            spec = item.obj()["spec"]
            if kind == "ServiceAccount" and spec.get("serviceAccountName", "default") == name:
                return True
            if kind == "ConfigMap" and name == "kube-root-ca.crt":
                return True
            pods.references(spec, visit)
            if found:
                return True
    return False
