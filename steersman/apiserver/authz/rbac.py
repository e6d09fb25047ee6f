"""Role-based access control, and nodes' own rights, over the cached roles and bindings.

Owns the decision for every request. Rules are compiled when roles or bindings change, and decisions are remembered
until the next change. Source: plugin/pkg/auth/authorizer/rbac and node.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from steersman.api.kind import Kind
from steersman.api.registry import Registry
from steersman.api.resource import Object
from steersman.apiserver.authz.node import node_may
from steersman.apiserver.call import User
from steersman.apiserver.request import RequestInfo
from steersman.apiserver.storage import Storage
from steersman.store.interface import Event

GROUP = "rbac.authorization.k8s.io"
SUPERUSERS = "system:masters"
_KINDS = ("clusterroles", "clusterrolebindings", "roles", "rolebindings")
_REMEMBERED = 20_000
_EVERYTHING = (
    {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
    {"verbs": ["*"], "nonResourceURLs": ["*"]},
)


@dataclass(frozen=True, slots=True)
class Grant:
    """A binding's rules, for one namespace or (empty) everywhere."""

    namespace: str
    rules: Sequence[Object]
    binding: str


class Rbac:
    """Implements `app.Authorizer`. Until it is attached everything is refused but to superusers."""

    def __init__(self) -> None:
        self._storage: Storage | None = None
        self._registry: Registry | None = None
        self._grants: dict[tuple[str, str], list[Grant]] | None = None
        self._decisions: dict[tuple[object, ...], str | None] = {}

    def attach(self, storage: Storage, registry: Registry) -> None:
        """Read roles from here, and hear of their changes."""
        self._storage, self._registry = storage, registry
        storage.on_change.append(self._changed)

    def _changed(self, kind: Kind, events: Sequence[Event]) -> None:
        if kind.group == GROUP:
            self._grants = None
            self._decisions.clear()

    def __call__(self, user: User, info: RequestInfo) -> str | None:
        """None when allowed, else the reason."""
        if SUPERUSERS in user.groups:
            return None
        if user.name.startswith("system:node:") and "system:nodes" in user.groups:
            assert self._storage is not None
            assert self._registry is not None
            if node_may(user.name.removeprefix("system:node:"), info, self._storage, self._registry):
                return None
        key = (user.name, user.groups, info.verb, info.group, info.resource, info.subresource, info.namespace,
               info.name if info.is_resource else info.path)  # fmt: skip
        try:
            return self._decisions[key]
        except KeyError:
            why = None if any(_covers(rule, info) for grant in self._of(user, info) for rule in grant.rules) else ""
            if len(self._decisions) > _REMEMBERED:
                self._decisions.clear()
            self._decisions[key] = why
            return why

    def reason(self, user: User, info: RequestInfo) -> str:
        """Which binding allows it, as SubjectAccessReviews show."""
        for grant in self._of(user, info):
            if any(_covers(rule, info) for rule in grant.rules):
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

    def _objects(self, plural: str) -> list[Object]:
        if self._storage is None or self._registry is None:
            return []
        kind = self._registry.find(GROUP, plural)
        if kind is None:
            return []
        return [item.obj() for _, item in self._storage.cache(kind).items(self._storage.prefix(kind))]

    def _compile(self) -> dict[tuple[str, str], list[Grant]]:
        cluster = {role["metadata"]["name"]: role.get("rules") or [] for role in self._objects("clusterroles")}
        local = {
            (role["metadata"]["namespace"], role["metadata"]["name"]): role.get("rules") or []
            for role in self._objects("roles")
        }
        grants: dict[tuple[str, str], list[Grant]] = {}
        for binding in [*self._objects("clusterrolebindings"), *self._objects("rolebindings")]:
            meta, ref = binding["metadata"], binding["roleRef"]
            namespace = meta.get("namespace", "")
            rules = cluster.get(ref["name"]) if ref["kind"] == "ClusterRole" else local.get((namespace, ref["name"]))
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

    def rules(self, user: User, namespace: str) -> tuple[list[Object], list[Object]]:
        """Everything a user may do in a namespace: (resource rules, non-resource rules)."""
        resources: list[Object] = []
        paths: list[Object] = []
        grants = [Grant("", _EVERYTHING, "")] if SUPERUSERS in user.groups else []
        for grant in [*grants, *self._all(user)]:
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


def _covers(rule: Object, info: RequestInfo) -> bool:
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
    return not names or info.name in names or (info.verb in ("watch", "list") and info.rest in names)


def _resource_matches(resources: Sequence[str], resource: str, subresource: str) -> bool:
    wanted = f"{resource}/{subresource}" if subresource else resource
    return "*" in resources or wanted in resources or (bool(subresource) and f"*/{subresource}" in resources)


def _path_matches(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern[:-1]))
