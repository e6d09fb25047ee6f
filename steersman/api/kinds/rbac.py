"""Role, ClusterRole and their bindings.

Source: pkg/apis/rbac/v1/defaults.go, pkg/apis/rbac/validation, printRoleBinding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steersman.api import labels, names
from steersman.api.errors import FieldError
from steersman.api.kind import Behavior, Column, Default, Validate
from steersman.api.resource import Object
from steersman.api.table import AGE, CREATED, NAME, dig, wide
from steersman.api.validation import invalid, not_supported, required, struct

Complaints = list[FieldError]

GROUP = "rbac.authorization.k8s.io"

_BY_GROUP = ("User", "Group")
_RULES = "rules cannot apply to both regular resources and non-resource URLs"


def _default_role(role: Object) -> None:
    """Rules are always there; in an aggregated role they are somebody else's to fill in."""
    role["rules"] = role.get("rules") or None  # Go writes a list without omitempty as null


def _default_binding(binding: Object) -> None:
    """Roles, users and groups belong to this group."""
    ref = binding.setdefault("roleRef", {})
    ref["apiGroup"] = ref.get("apiGroup") or GROUP
    for subject in binding.get("subjects") or ():
        if subject.get("kind") in _BY_GROUP and not subject.get("apiGroup"):
            subject["apiGroup"] = GROUP


def rule(path: str, found: Mapping[str, Any], *, namespaced: bool) -> Complaints:
    """A PolicyRule."""
    out = [] if found.get("verbs") else [required(f"{path}.verbs", "verbs must contain at least one value")]
    urls = found.get("nonResourceURLs")
    if urls:
        here = f"{path}.nonResourceURLs"
        if namespaced:
            out.append(invalid(here, urls, "namespaced rules cannot apply to non-resource URLs"))
        if any(found.get(key) for key in ("apiGroups", "resources", "resourceNames")):
            out.append(invalid(here, urls, _RULES))
        return out
    if not found.get("apiGroups"):
        out.append(required(f"{path}.apiGroups", "resource rules must supply at least one api group"))
    if not found.get("resources"):
        out.append(required(f"{path}.resources", "resource rules must supply at least one resource"))
    return out


def _role(role: Object) -> Complaints:
    rules = enumerate(role.get("rules") or ())
    return [error for i, each in rules for error in rule(f"rules[{i}]", each, namespaced=True)]


def _cluster_role(role: Object) -> Complaints:
    rules = enumerate(role.get("rules") or ())
    out = [error for i, each in rules for error in rule(f"rules[{i}]", each, namespaced=False)]
    aggregation = role.get("aggregationRule")
    if aggregation is None:
        return out
    here, selectors = "aggregationRule.clusterRoleSelectors", aggregation.get("clusterRoleSelectors") or ()
    if not selectors:
        out.append(required(here, "at least one clusterRoleSelector required if aggregationRule is non-nil"))
    for i, selector in enumerate(selectors):
        if wrong := labels.validate(selector, f"{here}[{i}]"):
            out += [*wrong, invalid(f"{here}[{i}]", None, "invalid label selector.")]
    return out


def _binding(kinds: tuple[str, ...], *, namespaced: bool) -> Validate:
    def validate(binding: Object) -> Complaints:
        ref = binding.get("roleRef") or {}
        out: Complaints = []
        if ref.get("apiGroup") != GROUP:
            out.append(not_supported("roleRef.apiGroup", ref.get("apiGroup") or "", (GROUP,)))
        if ref.get("kind") not in kinds:
            out.append(not_supported("roleRef.kind", ref.get("kind") or "", kinds))
        name = ref.get("name") or ""
        if not name:
            out.append(required("roleRef.name"))
        out += [invalid("roleRef.name", name, text) for text in names.path_segment(name)]
        for i, subject in enumerate(binding.get("subjects") or ()):
            out += _subject(f"subjects[{i}]", subject, namespaced=namespaced)
        return out

    return validate


def _subject(path: str, subject: Mapping[str, Any], *, namespaced: bool) -> Complaints:
    name, kind, group = (subject.get(key) or "" for key in ("name", "kind", "apiGroup"))
    out = [] if name else [required(f"{path}.name")]
    if kind == "ServiceAccount":
        if name:
            out += [invalid(f"{path}.name", name, text) for text in names.dns_subdomain(name)]
        if group:
            out.append(not_supported(f"{path}.apiGroup", group, ("",)))
        if not namespaced and not subject.get("namespace"):
            out.append(required(f"{path}.namespace"))
    elif kind not in _BY_GROUP:
        out.append(not_supported(f"{path}.kind", kind, ("ServiceAccount", *_BY_GROUP)))
    elif group != GROUP:
        out.append(not_supported(f"{path}.apiGroup", group, (GROUP,)))
    return out


def _same_role(new: Object, old: Object) -> Complaints:
    """A binding's role never changes."""
    if new.get("roleRef") == old.get("roleRef"):
        return []
    return [
        invalid("roleRef", struct(new.get("roleRef") or {}, APIGroup="", Kind="", Name=""), "cannot change roleRef")
    ]


def _subjects(kind: str) -> Any:
    def cell(binding: Object, now: float) -> str:
        found = [each for each in binding.get("subjects") or () if each.get("kind") == kind]
        if kind == "ServiceAccount":
            return ", ".join(f"{each.get('namespace', '')}/{each.get('name', '')}" for each in found)
        return ", ".join(each.get("name", "") for each in found)

    return cell


_BINDING_COLUMNS = (
    NAME,
    Column("Role", lambda obj, now: f"{dig(obj, 'roleRef', 'kind') or ''}/{dig(obj, 'roleRef', 'name') or ''}"),
    AGE,
    wide("Users", _subjects("User")),
    wide("Groups", _subjects("Group")),
    wide("ServiceAccounts", _subjects("ServiceAccount")),
)


def _behavior(kind: str, default: Default, validate: Validate, **more: Any) -> Behavior:
    order = "nvmu"
    return Behavior(GROUP, kind, order=order, default=default, validate=validate, name_rule=names.path_segment, **more)


ROLE = _behavior("Role", _default_role, _role, columns=(NAME, CREATED))
CLUSTERROLE = _behavior("ClusterRole", _default_role, _cluster_role, columns=(NAME, CREATED))
ROLEBINDING = _behavior(
    "RoleBinding",
    _default_binding,
    _binding(("Role", "ClusterRole"), namespaced=True),
    validate_update=_same_role,
    columns=_BINDING_COLUMNS,
)
CLUSTERROLEBINDING = _behavior(
    "ClusterRoleBinding",
    _default_binding,
    _binding(("ClusterRole",), namespaced=False),
    validate_update=_same_role,
    columns=_BINDING_COLUMNS,
)
