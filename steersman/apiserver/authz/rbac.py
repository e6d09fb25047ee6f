"""Role-based access control, and nodes' own rights, over the cached roles and bindings.

Owns the decision for every request. Rules are compiled when roles or bindings change, and decisions are remembered
until the next change. Source: plugin/pkg/auth/authorizer/rbac and node.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from steersman.api.kind import Kind
from steersman.api.registry import Registry
from steersman.api.resource import Object
from steersman.apiserver.authz.node import NodeRights
from steersman.apiserver.cache import Item
from steersman.apiserver.call import User
from steersman.apiserver.request import RequestInfo
from steersman.apiserver.storage import Storage
from steersman.store.interface import Event

GROUP = "rbac.authorization.k8s.io"
SUPERUSERS = "system:masters"
_NODE = "system:node:"
_NODES = "system:nodes"
_REMEMBERED = 20_000


@dataclass(frozen=True, slots=True)
class Grant:
    """A binding's rules, for one namespace or (empty) everywhere."""

    namespace: str
    rules: Sequence[Object]
    binding: str


class Rbac:
    """Implements `app.Authorizer`. Until it is attached everything is refused but to superusers."""

    def __init__(self, *, nodes: bool = True, roles: bool = True) -> None:
        """`nodes` and `roles` say which of the two it knows."""
        self._with_nodes, self._with_roles = nodes, roles
        self._storage: Storage | None = None
        self._registry: Registry | None = None
        self._nodes: NodeRights | None = None
        self._read: dict[tuple[str, str], tuple[Item, Object]] = {}
        self._roles: dict[tuple[str, str], Sequence[Object]] = {}
        self._grants: dict[tuple[str, str], list[Grant]] | None = None
        self._decisions: dict[tuple[object, ...], bool] = {}

    def attach(self, storage: Storage, registry: Registry) -> None:
        """Read roles from here, and hear of their changes."""
        self._storage, self._registry = storage, registry
        self._nodes = NodeRights(storage, registry) if self._with_nodes else None
        storage.on_change.append(self._changed)

    def _changed(self, kind: Kind, events: Sequence[Event]) -> None:
        if kind.group == GROUP:
            self._grants = None
            self._decisions.clear()
        elif self._nodes is not None and (kind.group, kind.kind) == ("", "Pod"):
            self._nodes.changed(events)

    def __call__(self, user: User, info: RequestInfo) -> str | None:
        """None when allowed, else the reason."""
        if SUPERUSERS in user.groups:
            return None
        why = ""
        if self._nodes is not None and user.name.startswith(_NODE) and _NODES in user.groups:
            refused = self._nodes.refusal(user.name.removeprefix(_NODE), info)
            if refused is None:
                return None
            why = refused
        return None if self._with_roles and self._allows(user, info) else why

    def _allows(self, user: User, info: RequestInfo) -> bool:
        key = (user.name, user.groups, info.verb, info.group, info.resource, info.subresource, info.namespace,
               info.about if info.is_resource else info.path)  # fmt: skip
        allowed = self._decisions.get(key)
        if allowed is None:
            allowed = any(covers(rule, info) for grant in self._of(user, info) for rule in grant.rules)
            if len(self._decisions) > _REMEMBERED:
                self._decisions.clear()
            self._decisions[key] = allowed
        return allowed

    def reason(self, user: User, info: RequestInfo) -> str:
        """Which binding allows it, as SubjectAccessReviews show; nothing need allow superusers anything."""
        if SUPERUSERS in user.groups:
            return ""
        for grant in self._of(user, info):
            if any(covers(rule, info) for rule in grant.rules):
                return f"RBAC: allowed by {grant.binding}"
        return ""

    def _of(self, user: User, info: RequestInfo) -> Iterable[Grant]:
        namespace = info.namespace if info.is_resource else ""
        return [grant for grant in self._all(user) if not grant.namespace or grant.namespace == namespace]

    def _all(self, user: User) -> list[Grant]:
        if self._grants is None:
            self._grants = self._compile()
        found = list(self._grants.get(("User", user.name), ()))
        for group in user.groups:
            found += self._grants.get(("Group", group), ())
        return found

    def _objects(self, plural: str) -> Iterator[Object]:
        """Every object, decoded once for as long as it stays as it is."""
        kind = self._registry.find(GROUP, plural) if self._registry is not None else None
        if self._storage is None or kind is None:
            return
        for key, item in self._storage.cache(kind).items(self._storage.prefix(kind)):
            known = self._read.get((plural, key))
            if known is None or known[0] is not item:
                known = self._read[plural, key] = item, item.obj()
            yield known[1]

    def role_rules(self, namespace: str, ref: Object) -> Sequence[Object] | None:
        """The rules of the role that a binding in `namespace` (empty: everywhere) refers to; None without it."""
        if self._grants is None:
            self._grants = self._compile()
        return self._roles.get(("" if ref["kind"] == "ClusterRole" else namespace, ref["name"]))

    def _compile(self) -> dict[tuple[str, str], list[Grant]]:
        if len(self._read) > _REMEMBERED:
            self._read.clear()
        self._roles = {
            (role["metadata"].get("namespace", ""), role["metadata"]["name"]): role.get("rules") or []
            for plural in ("clusterroles", "roles")
            for role in self._objects(plural)
        }
        grants: dict[tuple[str, str], list[Grant]] = {}
        for binding in [*self._objects("clusterrolebindings"), *self._objects("rolebindings")]:
            meta, ref = binding["metadata"], binding["roleRef"]
            namespace = meta.get("namespace", "")
            rules = self._roles.get(("" if ref["kind"] == "ClusterRole" else namespace, ref["name"]))
            if rules is None:
                continue
            kind = binding["kind"]
            shown = (
                f'{kind} "{meta["name"]}{f"/{namespace}" if namespace else ""}" of {ref["kind"]} "{ref["name"]}" to '
            )
            for subject in binding.get("subjects") or ():
                key, text = _subject(subject, namespace)
                grants.setdefault(key, []).append(Grant(namespace, rules, shown + text))
        return grants

    def held(self, user: User, namespace: str) -> list[Object]:
        """Every rule that a user has in a namespace, or (empty) everywhere."""
        return [rule for grant in self._all(user) if grant.namespace in ("", namespace) for rule in grant.rules]

    def rules(self, user: User, namespace: str) -> tuple[list[Object], list[Object]]:
        """Everything a user may do in a namespace: (resource rules, non-resource rules)."""
        resources: list[Object] = []
        paths: list[Object] = []
        for grant in self._all(user):
            if grant.namespace not in ("", namespace):
                continue
            for rule in grant.rules:
                if rule.get("nonResourceURLs"):
                    paths.append({"verbs": rule["verbs"], "nonResourceURLs": rule["nonResourceURLs"]})
                else:
                    resources.append({k: v for k, v in rule.items() if v})
        return resources, paths


def _subject(subject: Object, namespace: str) -> tuple[tuple[str, str], str]:
    kind, name = subject["kind"], subject["name"]
    if kind == "ServiceAccount":
        where = subject.get("namespace") or namespace
        return ("User", f"system:serviceaccount:{where}:{name}"), f'ServiceAccount "{name}/{where}"'
    return (kind, name), f'{kind} "{name}"'


def covers(rule: Object, info: RequestInfo) -> bool:
    """Whether one rule allows one request."""
    verbs = rule.get("verbs") or ()
    if "*" not in verbs and info.verb not in verbs:
        return False
    if not info.is_resource:
        return any(_path_matches(pattern, info.path) for pattern in rule.get("nonResourceURLs") or ())
    groups = rule.get("apiGroups") or ()
    if "*" not in groups and info.group not in groups:
        return False
    if not _resource_matches(rule.get("resources") or (), info.resource, info.subresource):
        return False
    names = rule.get("resourceNames")
    return not names or info.about in names


def _resource_matches(resources: Sequence[str], resource: str, subresource: str) -> bool:
    wanted = f"{resource}/{subresource}" if subresource else resource
    return "*" in resources or wanted in resources or (bool(subresource) and f"*/{subresource}" in resources)


def _path_matches(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern[:-1]))
