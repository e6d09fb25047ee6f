"""What a kubelet may do: its own node, the pods bound to it, and what those pods refer to.

Owns which objects each node's pods refer to. Called by the RBAC authorizer for users of the group system:nodes; what
a node writes is judged further by admission (NodeRestriction). Source: plugin/pkg/auth/authorizer/node and the
NodeRules of the RBAC bootstrap policy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from steersman.api import pods
from steersman.api.registry import Registry
from steersman.api.resource import Object
from steersman.apiserver.authz.policy import read
from steersman.apiserver.authz.roles import CLUSTER_ROLES
from steersman.apiserver.cache import Item
from steersman.apiserver.request import RequestInfo
from steersman.apiserver.storage import Storage
from steersman.store.interface import Event

Reference = tuple[str, str]  # kind and name, in the pod's namespace

_READ = ("get", "list", "watch")
_OWN = ("get", "create", "update", "patch", "delete")
_LEASES = "kube-node-lease"
_DRIVER_SECRETS = ("nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef", "controllerExpandSecretRef",
                   "controllerPublishSecretRef")  # fmt: skip


class NodeRights:
    """Judges requests of nodes."""

    def __init__(self, storage: Storage, registry: Registry) -> None:
        self._storage = storage
        self._registry = registry
        self._changed: set[str] | None = None  # keys of pods to look at again; None: all
        self._pods: dict[str, dict[str, frozenset[Reference]]] = {}  # node, key of a pod: what it refers to
        self._bound: dict[str, str] = {}  # key of a pod: its node
        self._rules: frozenset[tuple[str, str, str]] | None = None  # verb, group, resource

    def changed(self, events: Sequence[Event]) -> None:
        """Pods were written; they are read when somebody asks next."""
        if self._changed is not None:
            self._changed.update(event.key for event in events if event.key not in self._bound or _may_matter(event))

    def refusal(self, node: str, info: RequestInfo) -> str | None:
        """Why the kubelet of `node` may not do it (sometimes empty); None when it may."""
        judge = _JUDGES.get((info.group, info.resource)) if info.is_resource else None
        if judge is not None:
            return judge(self, node, info)
        plural = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
        if self._rules is None:
            self._rules = frozenset(
                (verb, group, resource)
                for rule in read(CLUSTER_ROLES)["system:node"]
                for verb in rule["verbs"]
                for group in rule["apiGroups"]
                for resource in rule["resources"]
            )
        return None if info.is_resource and (info.verb, info.group, plural) in self._rules else ""

    # What pods refer to ----------------------------------------------------------------------------------------------

    def _of(self, node: str) -> dict[str, frozenset[Reference]]:
        kind = self._registry.find("", "pods")
        if kind is None:
            return {}
        cache = self._storage.cache(kind)
        if self._changed is None:
            self._changed = {key for key, _ in cache.items(self._storage.prefix(kind))}
        for key in self._changed:
            self._look(key, cache.get(key))
        self._changed.clear()
        return self._pods.get(node, {})

    def _look(self, key: str, item: Item | None) -> None:
        gone = self._bound.pop(key, None)
        if gone is not None:
            self._pods[gone].pop(key, None)
        node = item.field("spec.nodeName") if item is not None else ""
        if item is not None and node:
            self._bound[key] = node
            self._pods.setdefault(node, {})[key] = _references(item)

    def _refer(self, node: str, namespace: str, wanted: Reference) -> bool:
        start = f"/core/pods/{namespace}/"
        return any(wanted in named for key, named in self._of(node).items() if key.startswith(start))

    def _claims(self, node: str) -> Iterator[Object]:
        """Every claim of the node's pods."""
        kind = self._registry.find("", "persistentvolumeclaims")
        for key, named in self._of(node).items():
            for what, name in named:
                if what == "PersistentVolumeClaim" and kind is not None:
                    item = self._storage.find(kind, key.split("/")[3], name)
                    if item is not None:
                        yield item.obj()

    def _volumes(self, node: str) -> Iterator[Object]:
        """Every volume that such a claim is bound to."""
        kind = self._registry.find("", "persistentvolumes")
        for claim in self._claims(node):
            name = (claim.get("spec") or {}).get("volumeName")
            item = self._storage.find(kind, "", name) if name and kind is not None else None
            if item is not None:
                yield item.obj()

    # Judges, one for each kind of which a node sees only a part ------------------------------------------------------

    def _referred(self, node: str, info: RequestInfo, kind: str) -> str | None:
        name = info.about
        if not name:
            return "No Object name found"
        if self._refer(node, info.namespace, (kind, name)):
            return None
        if kind == "Secret" and any(_needs(volume, info.namespace, name) for volume in self._volumes(node)):
            return None
        return _unrelated(node)

    def _readable(self, node: str, info: RequestInfo) -> str | None:
        if info.verb not in _READ:
            return "can only read resources of this type"
        if info.subresource:
            return "cannot read subresource"
        if not info.namespace:
            return "can only read namespaced object of this type"
        return self._referred(node, info, "Secret" if info.resource == "secrets" else "ConfigMap")

    def _claim(self, node: str, info: RequestInfo) -> str | None:
        if info.subresource == "status":
            if info.verb not in ("update", "patch"):
                return "can only get/update/patch this type"
        elif (why := _only_get(info)) is not None:
            return why
        return self._referred(node, info, "PersistentVolumeClaim")

    def _volume(self, node: str, info: RequestInfo) -> str | None:
        if (why := _only_get(info)) is not None:
            return why
        known = any(volume["metadata"]["name"] == info.name for volume in self._volumes(node))
        return None if known else _unrelated(node)

    def _attachment(self, node: str, info: RequestInfo) -> str | None:
        if (why := _only_get(info)) is not None:
            return why
        kind = self._registry.find("storage.k8s.io", "volumeattachments")
        item = self._storage.find(kind, "", info.name) if kind is not None else None
        return None if item is not None and item.obj()["spec"].get("nodeName") == node else _unrelated(node)

    def _account(self, node: str, info: RequestInfo) -> str | None:
        if info.verb == "get" and not info.subresource:
            return self._referred(node, info, "ServiceAccount")
        if info.verb != "create" or not info.name:
            return "can only create tokens for individual service accounts"
        if info.subresource != "token":
            return "can only create token subresource of serviceaccount"
        return self._referred(node, info, "ServiceAccount")

    def _lease(self, node: str, info: RequestInfo) -> str | None:
        if info.verb not in _OWN:
            return "can only get, create, update, patch, or delete a node lease"
        if info.namespace != _LEASES:
            return f'can only access leases in the "{_LEASES}" system namespace'
        if info.verb != "create" and info.name != node:
            return "can only access node lease with the same name as the requesting node"
        return None

    def _csinode(self, node: str, info: RequestInfo) -> str | None:
        if info.verb not in _OWN:
            return "can only get, create, update, patch, or delete a CSINode"
        if info.subresource:
            return "cannot authorize CSINode subresources"
        if info.verb != "create" and info.name != node:
            return "can only access CSINode with the same name as the requesting node"
        return None

    def _node(self, node: str, info: RequestInfo) -> str | None:
        if info.subresource:
            return None if info.subresource == "status" and info.verb in ("update", "patch") else ""
        if info.verb in ("create", "update", "patch"):
            return None
        name = info.about
        if info.verb not in _READ:
            return ""
        if name == node:
            return None
        wrong = f"'{name}'" if name else "all nodes"
        return f"node '{node}' cannot read {wrong}, only its own Node object"

    def _pod(self, node: str, info: RequestInfo) -> str | None:
        allowed = {"": ("list", "watch", "create", "delete"), "status": ("update", "patch"), "eviction": ("create",)}
        if info.verb in allowed.get(info.subresource, ()):
            return None
        if info.verb != "get" or info.subresource:
            return ""
        self._of(node)
        return None if self._bound.get(f"/core/pods/{info.namespace}/{info.name}") == node else _unrelated(node)


_JUDGES = {
    ("", "secrets"): NodeRights._readable,
    ("", "configmaps"): NodeRights._readable,
    ("", "persistentvolumeclaims"): NodeRights._claim,
    ("", "persistentvolumes"): NodeRights._volume,
    ("storage.k8s.io", "volumeattachments"): NodeRights._attachment,
    ("", "serviceaccounts"): NodeRights._account,
    ("coordination.k8s.io", "leases"): NodeRights._lease,
    ("storage.k8s.io", "csinodes"): NodeRights._csinode,
    ("", "nodes"): NodeRights._node,
    ("", "pods"): NodeRights._pod,
}


def _may_matter(event: Event) -> bool:
    """Whether a pod that is bound can refer to something else than before: only through a new ephemeral container."""
    return event.value is None or b'"ephemeralContainers"' in event.value


def _unrelated(node: str) -> str:
    return f"no relationship found between node '{node}' and this object"


def _only_get(info: RequestInfo) -> str | None:
    if info.verb != "get":
        return "can only get individual resources of this type"
    return "cannot get subresource" if info.subresource else None


def _needs(volume: Object, namespace: str, secret: str) -> bool:
    """Whether a volume's driver needs a secret."""
    csi = (volume.get("spec") or {}).get("csi") or {}
    return any((csi.get(key) or {}) == {"namespace": namespace, "name": secret} for key in _DRIVER_SECRETS)


def _references(item: Item) -> frozenset[Reference]:
    """Everything that a pod names."""
    spec = item.obj()["spec"]
    found: set[Reference] = {("ServiceAccount", spec.get("serviceAccountName") or "default")}
    pods.references(spec, lambda kind, name: found.add((kind, name)))
    for volume in spec.get("volumes") or ():
        if claim := volume.get("persistentVolumeClaim"):
            found.add(("PersistentVolumeClaim", claim["claimName"]))
        if volume.get("ephemeral"):
            found.add(("PersistentVolumeClaim", f"{item.name}-{volume['name']}"))
        if secret := (volume.get("csi") or {}).get("nodePublishSecretRef"):
            found.add(("Secret", secret["name"]))
    return frozenset(found)
