"""Role, ClusterRole, RoleBinding, ClusterRoleBinding.

Source: pkg/apis/rbac/validation, pkg/apis/rbac/v1/defaults.go, the RBAC printers.
"""

from __future__ import annotations

from typing import Any

from steersman.api import labels, names
from steersman.api.errors import FieldError
from steersman.api.kind import Behavior, Column
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, field, wide
from steersman.api.validation import immutable, not_supported, required

GROUP = "rbac.authorization.k8s.io"


def _validate_rule(rule: Object, path: str, *, namespaced: bool) -> list[FieldError]:
    found: list[FieldError] = []
    if not rule.get("verbs"):
        found.append(required(f"{path}.verbs", "verbs must contain at least one value"))
    if rule.get("nonResourceURLs"):
        if namespaced:
            text = "namespaced rules cannot apply to non-resource URLs"
            found.append(FieldError("FieldValueInvalid", f"{path}.nonResourceURLs", f"Invalid value: {text}"))
        if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
            text = "Invalid value: rules cannot apply to both regular resources and non-resource URLs"
            found.append(FieldError("FieldValueInvalid", f"{path}.nonResourceURLs", text))
        return found
    if not rule.get("apiGroups"):
        found.append(required(f"{path}.apiGroups", "resource rules must supply at least one api group"))
    if not rule.get("resources"):
        found.append(required(f"{path}.resources", "resource rules must supply at least one resource"))
    return found


def _validate_role(obj: Object) -> list[FieldError]:
    namespaced = obj["kind"] == "Role"
    found: list[FieldError] = []
    for at, rule in enumerate(obj.get("rules") or ()):
        found += _validate_rule(rule, f"rules[{at}]", namespaced=namespaced)
    for at, selector in enumerate((obj.get("aggregationRule") or {}).get("clusterRoleSelectors") or ()):
        found += labels.validate(selector, f"aggregationRule.clusterRoleSelectors[{at}]")
    return found


def _default_binding(obj: Object) -> None:
    reference = obj.setdefault("roleRef", {})
    if not reference.get("apiGroup"):
        reference["apiGroup"] = GROUP
    for subject in obj.get("subjects") or ():
        if not subject.get("apiGroup"):
            if subject.get("kind") in ("User", "Group"):
                subject["apiGroup"] = GROUP
            else:
                subject.pop("apiGroup", None)


def _validate_binding(obj: Object) -> list[FieldError]:
    reference, found = obj["roleRef"], []
    if reference.get("apiGroup") != GROUP:
        found.append(not_supported("roleRef.apiGroup", reference.get("apiGroup", ""), [GROUP]))
    allowed = ["ClusterRole"] if obj["kind"] == "ClusterRoleBinding" else ["Role", "ClusterRole"]
    if reference.get("kind") not in allowed:
        found.append(not_supported("roleRef.kind", reference.get("kind", ""), allowed))
    if not reference.get("name"):
        found.append(required("roleRef.name"))
    for at, subject in enumerate(obj.get("subjects") or ()):
        found += _validate_subject(subject, f"subjects[{at}]", namespaced=obj["kind"] == "RoleBinding")
    return found


def _validate_subject(subject: Object, path: str, *, namespaced: bool) -> list[FieldError]:
    found: list[FieldError] = []
    kind, group = subject.get("kind"), subject.get("apiGroup", "")
    if not subject.get("name"):
        found.append(required(f"{path}.name"))
    if kind not in ("ServiceAccount", "User", "Group"):
        found.append(not_supported(f"{path}.kind", kind, ["ServiceAccount", "User", "Group"]))
    elif kind == "ServiceAccount":
        if group:
            found.append(not_supported(f"{path}.apiGroup", group, [""]))
        if not namespaced and not subject.get("namespace"):
            found.append(required(f"{path}.namespace"))
    elif group != GROUP:
        found.append(not_supported(f"{path}.apiGroup", group, [GROUP]))
    return found


def _validate_binding_update(new: Object, old: Object) -> list[FieldError]:
    return [
        FieldError(
            "FieldValueInvalid", error.field, error.detail.replace("field is immutable", "cannot change roleRef")
        )
        for error in immutable("roleRef", new["roleRef"], old["roleRef"])
    ]


def _role_ref(obj: Object, now: float) -> Any:
    return f"{obj['roleRef']['kind']}/{obj['roleRef']['name']}"


def _subjects(kind: str) -> Any:
    def cell(obj: Object, now: float) -> str:
        chosen = [subject for subject in obj.get("subjects") or () if subject.get("kind") == kind]
        if kind == "ServiceAccount":
            return ", ".join(f"{subject.get('namespace', '')}/{subject['name']}" for subject in chosen)
        return ", ".join(subject["name"] for subject in chosen)

    return cell


_CREATED = field("Created At", "metadata", "creationTimestamp", type="date")
_BINDING_COLUMNS = (
    NAME,
    Column("Role", _role_ref, description="The role that is given."),
    AGE,
    wide("Users", _subjects("User")),
    wide("Groups", _subjects("Group")),
    wide("ServiceAccounts", _subjects("ServiceAccount")),
)

ROLE = Behavior(GROUP, "Role", validate=_validate_role, name_rule=names.path_segment, columns=(NAME, _CREATED))
CLUSTERROLE = Behavior(
    GROUP, "ClusterRole", validate=_validate_role, name_rule=names.path_segment, columns=(NAME, _CREATED)
)
ROLEBINDING = Behavior(
    GROUP,
    "RoleBinding",
    default=_default_binding,
    validate=_validate_binding,
    validate_update=_validate_binding_update,
    name_rule=names.path_segment,
    columns=_BINDING_COLUMNS,
)
CLUSTERROLEBINDING = Behavior(
    GROUP,
    "ClusterRoleBinding",
    default=_default_binding,
    validate=_validate_binding,
    validate_update=_validate_binding_update,
    name_rule=names.path_segment,
    columns=_BINDING_COLUMNS,
)
