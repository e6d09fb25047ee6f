"""The roles and bindings that a cluster starts with, as data.

Owns their rules. Written by `bootstrap.py` where missing. Names and rules are those of kube-apiserver's RBAC bootstrap
policy (plugin/pkg/auth/authorizer/rbac/bootstrappolicy), as far as their resources are served.
"""

from __future__ import annotations

from typing import Any

Rule = dict[str, Any]

_LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_ANNOTATIONS = {"rbac.authorization.kubernetes.io/autoupdate": "true"}
_GROUP = "rbac.authorization.k8s.io"

READ = "get list watch"
WRITE = "create delete deletecollection patch update"
ALL = "*"


def rule(verbs: str, groups: str, resources: str, names: str = "") -> Rule:
    """One rule; lists are separated by blanks, the core group is `core`."""
    made: Rule = {
        "verbs": verbs.split(),
        "apiGroups": ["" if group == "core" else group for group in groups.split()],
        "resources": resources.split(),
    }
    if names:
        made["resourceNames"] = names.split()
    return made


def paths(verbs: str, urls: str) -> Rule:
    """A rule for paths that are no resource."""
    return {"verbs": verbs.split(), "nonResourceURLs": urls.split()}


_EVENTS = rule("create patch update", "core events.k8s.io", "events")
_WORKLOADS = (
    "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets "
    "statefulsets/scale"
)
_CORE_VIEW = (
    "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers "
    "replicationcontrollers/scale serviceaccounts services services/status"
)
_CORE_STATUS = (
    "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status resourcequotas "
    "resourcequotas/status"
)

VIEW = [
    rule(READ, "core", _CORE_VIEW),
    rule(READ, "core", _CORE_STATUS),
    rule(READ, "core", "namespaces"),
    rule(READ, "discovery.k8s.io", "endpointslices"),
    rule(
        READ,
        "apps",
        f"controllerrevisions {_WORKLOADS} daemonsets/status deployments/status replicasets/status statefulsets/status",
    ),
    rule(READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
    rule(READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
    rule(READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
    rule(READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
]
EDIT = [
    rule(READ, "core", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
    rule("impersonate", "core", "serviceaccounts"),
    rule(WRITE, "core", "pods pods/attach pods/exec pods/portforward pods/proxy"),
    rule("create", "core", "pods/eviction"),
    rule(
        WRITE,
        "core",
        "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets "
        "serviceaccounts services services/proxy",
    ),
    rule("create", "core", "serviceaccounts/token"),
    rule(WRITE, "apps", _WORKLOADS),
    rule(WRITE, "autoscaling", "horizontalpodautoscalers"),
    rule(WRITE, "batch", "cronjobs jobs"),
    rule(WRITE, "policy", "poddisruptionbudgets"),
    rule(WRITE, "networking.k8s.io", "ingresses networkpolicies"),
    rule(f"{READ} {WRITE}", "coordination.k8s.io", "leases"),
]
ADMIN = [
    rule("create", "authorization.k8s.io", "localsubjectaccessreviews"),
    rule(f"{READ} {WRITE}", _GROUP, "rolebindings roles"),
]

_DISCOVERY = "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/"

CLUSTER_ROLES: dict[str, list[Rule]] = {
    "cluster-admin": [rule(ALL, ALL, ALL), paths(ALL, ALL)],
    "admin": [*ADMIN, *EDIT, *VIEW],
    "edit": [*EDIT, *VIEW],
    "view": VIEW,
    "system:discovery": [paths("get", _DISCOVERY)],
    "system:public-info-viewer": [paths("get", "/healthz /livez /readyz /version /version/")],
    "system:monitoring": [paths("get", "/healthz /healthz/* /livez /livez/* /metrics /readyz /readyz/*")],
    "system:basic-user": [
        rule("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
        rule("create", "authentication.k8s.io", "selfsubjectreviews"),
    ],
    "system:service-account-issuer-discovery": [
        paths(
            "get",
            "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/",
        )
    ],
    "system:auth-delegator": [
        rule("create", "authentication.k8s.io", "tokenreviews"),
        rule("create", "authorization.k8s.io", "subjectaccessreviews"),
    ],
    "system:kube-controller-manager": [rule(ALL, ALL, ALL), paths("get", ALL)],
    "system:kube-scheduler": [
        _EVENTS,
        rule("create get list update watch patch", "coordination.k8s.io", "leases"),
        rule(READ, "core", "nodes namespaces persistentvolumeclaims persistentvolumes replicationcontrollers services"),
        rule("delete get list watch", "core", "pods"),
        rule("create", "core", "bindings pods/binding"),
        rule("patch update", "core", "pods/status"),
        rule(READ, "apps", "replicasets statefulsets"),
        rule(READ, "policy", "poddisruptionbudgets"),
        rule(READ, "storage.k8s.io", "csidrivers csinodes csistoragecapacities storageclasses volumeattachments"),
        rule("create", "authentication.k8s.io", "tokenreviews"),
        rule("create", "authorization.k8s.io", "subjectaccessreviews"),
    ],
    "system:kube-dns": [
        rule("list watch", "core", "endpoints namespaces pods services"),
        rule("list watch", "discovery.k8s.io", "endpointslices"),
    ],
    "system:node-proxier": [
        rule("list watch", "core", "endpoints services"),
        rule(READ, "core", "nodes"),
        rule("list watch", "discovery.k8s.io", "endpointslices"),
        rule("list watch", "networking.k8s.io", "servicecidrs"),
        _EVENTS,
        # This node's DNS shares the proxy's informers, and answers for pods by address.
        rule("list watch", "core", "namespaces pods"),
    ],
    "system:node": [rule("get", "core", "nodes")],
    "system:persistent-volume-provisioner": [
        rule("create delete get list watch", "core", "persistentvolumes"),
        rule("get list update watch", "core", "persistentvolumeclaims"),
        rule(READ, "storage.k8s.io", "storageclasses"),
        rule("watch", "core", "events"),
        rule("create patch update", "core", "events"),
    ],
    "system:kubelet-api-admin": [
        rule(READ, "core", "nodes"),
        rule("proxy", "core", "nodes"),
        rule(ALL, "core", "nodes/log nodes/metrics nodes/proxy nodes/stats"),
    ],
}

_BINDINGS: dict[str, tuple[str, str]] = {
    "cluster-admin": ("Group", "system:masters"),
    "system:discovery": ("Group", "system:authenticated"),
    "system:basic-user": ("Group", "system:authenticated"),
    "system:monitoring": ("Group", "system:monitoring"),
    "system:service-account-issuer-discovery": ("Group", "system:serviceaccounts"),
    "system:kube-controller-manager": ("User", "system:kube-controller-manager"),
    "system:kube-scheduler": ("User", "system:kube-scheduler"),
    "system:node-proxier": ("User", "system:kube-proxy"),
}


def cluster_roles() -> list[dict[str, Any]]:
    """Every bootstrap ClusterRole as an object."""
    aggregates = {"view": "edit", "edit": "admin"}
    made = []
    for name, rules in CLUSTER_ROLES.items():
        labels = dict(_LABELS)
        if name in aggregates:
            labels[f"rbac.authorization.k8s.io/aggregate-to-{aggregates[name]}"] = "true"
        meta = {"name": name, "labels": labels, "annotations": dict(_ANNOTATIONS)}
        made.append({"apiVersion": f"{_GROUP}/v1", "kind": "ClusterRole", "metadata": meta, "rules": rules})
    return made


def cluster_role_bindings() -> list[dict[str, Any]]:
    """Every bootstrap ClusterRoleBinding as an object."""
    chosen = [(name, name, [subject]) for name, subject in _BINDINGS.items()]
    both = [("Group", "system:authenticated"), ("Group", "system:unauthenticated")]
    chosen.append(("system:public-info-viewer", "system:public-info-viewer", both))
    return [
        {
            "apiVersion": f"{_GROUP}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name, "labels": dict(_LABELS), "annotations": dict(_ANNOTATIONS)},
            "roleRef": {"apiGroup": _GROUP, "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": kind, "apiGroup": _GROUP, "name": who} for kind, who in subjects],
        }
        for name, role, subjects in chosen
    ]
