"""The roles and bindings that a cluster starts with, as objects.

Owns the reading of the tables in `roles.py`, and who is bound to what. Written by `bootstrap.py` where missing. Source:
kube-apiserver's RBAC bootstrap policy (plugin/pkg/auth/authorizer/rbac/bootstrappolicy).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from steersman.apiserver.authz import roles

Rule = dict[str, Any]
Object = dict[str, Any]

GROUP = "rbac.authorization.k8s.io"
_CONTROLLER = "system:controller:"
_SHORT = {
    "READ": "get list watch",
    "WRITE": "create delete deletecollection patch update",
    "READWRITE": "create delete deletecollection get list patch update watch",
}
_EVENTS = "create patch update | core events.k8s.io | events"
_AGGREGATED = {"view": "edit", "edit": "admin", "admin": ""}  # which aggregates into which

_BOUND: dict[str, str] = {
    "cluster-admin": "Group system:masters",
    "steersman:controllers": "User system:kube-controller-manager",
    "steersman:dns": "ServiceAccount kube-system/kube-dns",
    "steersman:proxy": "User system:kube-proxy",
    "system:basic-user": "Group system:authenticated",
    "system:discovery": "Group system:authenticated",
    "system:kube-controller-manager": "User system:kube-controller-manager",
    "system:kube-dns": "ServiceAccount kube-system/kube-dns",
    "system:kube-scheduler": "User system:kube-scheduler",
    "system:monitoring": "Group system:monitoring",
    "system:node": "",
    "system:node-proxier": "User system:kube-proxy",
    "system:public-info-viewer": "Group system:authenticated, Group system:unauthenticated",
    "system:service-account-issuer-discovery": "Group system:serviceaccounts",
    "system:volume-scheduler": "User system:kube-scheduler",
}
_BOUND_IN: dict[str, tuple[str, str]] = {
    "kube-public/system:controller:bootstrap-signer": ("", "ServiceAccount kube-system/bootstrap-signer"),
    "kube-system/system::extension-apiserver-authentication-reader": (
        "extension-apiserver-authentication-reader",
        "User system:kube-controller-manager, User system:kube-scheduler",
    ),
    "kube-system/system::leader-locking-kube-controller-manager": (
        "",
        "User system:kube-controller-manager, ServiceAccount kube-system/kube-controller-manager, "
        "ServiceAccount kube-system/leader-election-controller",
    ),
    "kube-system/system::leader-locking-kube-scheduler": (
        "",
        "User system:kube-scheduler, ServiceAccount kube-system/kube-scheduler",
    ),
    "kube-system/system:controller:bootstrap-signer": ("", "ServiceAccount kube-system/bootstrap-signer"),
    "kube-system/system:controller:cloud-provider": ("", "ServiceAccount kube-system/cloud-provider"),
    "kube-system/system:controller:token-cleaner": ("", "ServiceAccount kube-system/token-cleaner"),
}


def read(table: str) -> dict[str, list[Rule]]:
    """Rules by role, from a table as `roles.py` describes it."""
    found: dict[str, list[Rule]] = {}
    name, pending = "", ""
    for line in [*table.splitlines(), "."]:
        if line.startswith("   "):
            pending += line
            continue
        if pending:
            found[name].append(_rule(pending))
            pending = ""
        if line.startswith("  "):
            pending = "" if line.startswith("  #") else line
        elif line and line != ".":
            name = line
            found[name] = []
    return found


def _rule(line: str) -> Rule:
    if line.strip() == "EVENTS":
        line = _EVENTS
    verbs, second, *rest = (part.split() for part in line.split("|"))
    verbs = _SHORT.get(verbs[0], " ".join(verbs)).split()
    if not rest:
        return {"verbs": verbs, "nonResourceURLs": second}
    groups = ["" if group == "core" else group for group in second]
    made: Rule = {"verbs": verbs, "apiGroups": groups, "resources": rest[0]}
    if len(rest) > 1:
        made["resourceNames"] = rest[1]
    return made


def _object(kind: str, name: str, labels: dict[str, str] | None = None, **more: Any) -> Object:
    """One RBAC object; a namespaced one is named `namespace/name`."""
    namespace, _, short = name.rpartition("/")
    meta: Object = {
        "name": short,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults", **(labels or {})},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    }
    if namespace:
        meta["namespace"] = namespace
    return {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": meta, **more}


def _subjects(text: str) -> Iterator[Object]:
    for each in filter(None, text.split(", ")):
        kind, _, who = each.partition(" ")
        if kind == "ServiceAccount":
            namespace, _, name = who.partition("/")
            yield {"kind": kind, "name": name, "namespace": namespace}
        else:
            yield {"kind": kind, "apiGroup": GROUP, "name": who}


def _binding(kind: str, name: str, role_kind: str, role: str, who: str) -> Object:
    subjects = list(_subjects(who))
    given: Object = {"subjects": subjects} if subjects else {}
    return _object(kind, name, roleRef={"apiGroup": GROUP, "kind": role_kind, "name": role}, **given)


def _aggregate(role: str) -> str:
    return f"{GROUP}/aggregate-to-{role}"


def cluster_roles() -> list[Object]:
    """Every bootstrap ClusterRole. The aggregated ones come with the rules that the controller would give them."""
    made, plain = [], read(roles.CLUSTER_ROLES)
    for name, rules in plain.items():
        into = name.removeprefix("system:aggregate-to-")
        labels = {_aggregate(into): "true"} if into != name else {}
        made.append(_object("ClusterRole", name, labels, rules=rules))
    held: list[Rule] = []
    below = ""
    for name, into in _AGGREGATED.items():
        own = f"system:aggregate-to-{name}"
        chosen = {own: plain[own]} | ({below: held} if below else {})
        held = [rule for role in sorted(chosen) for rule in chosen[role]]
        below = name
        selectors = [{"matchLabels": {_aggregate(name): "true"}}]
        labels = {_aggregate(into): "true"} if into else {}
        aggregation = {"clusterRoleSelectors": selectors}
        made.append(_object("ClusterRole", name, labels, aggregationRule=aggregation, rules=held))
    for name, rules in read(roles.CONTROLLER_ROLES).items():
        made.append(_object("ClusterRole", _CONTROLLER + name, rules=rules))
    return made


def cluster_role_bindings() -> list[Object]:
    """Every bootstrap ClusterRoleBinding."""
    bound = [_binding("ClusterRoleBinding", name, "ClusterRole", name, who) for name, who in _BOUND.items()]
    for short in read(roles.CONTROLLER_ROLES):
        name = _CONTROLLER + short
        bound.append(_binding("ClusterRoleBinding", name, "ClusterRole", name, f"ServiceAccount kube-system/{short}"))
    return bound


def namespace_roles() -> list[Object]:
    """Every bootstrap Role."""
    return [_object("Role", name, rules=rules) for name, rules in read(roles.NAMESPACE_ROLES).items()]


def role_bindings() -> list[Object]:
    """Every bootstrap RoleBinding."""
    return [
        _binding("RoleBinding", name, "Role", role or name.rpartition("/")[2], who)
        for name, (role, who) in _BOUND_IN.items()
    ]
