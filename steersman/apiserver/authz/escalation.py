"""Nobody grants what they do not have: roles and bindings are compared with the writer's own rights.

Called by the admission chain. Superusers may do everything, `escalate` and `bind` lift the rule for a role. Source:
pkg/registry/rbac (policybased storage), component-helpers' auth/rbac/validation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from steersman.api import errors
from steersman.api.resource import Object
from steersman.apiserver.authz.rbac import GROUP, SUPERUSERS, Rbac
from steersman.apiserver.call import Call
from steersman.apiserver.request import RequestInfo

_ROLES = ("Role", "ClusterRole")
_BINDINGS = ("RoleBinding", "ClusterRoleBinding")
_HOUSEKEEPING = ("ownerReferences", "finalizers", "managedFields")


def validate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Refuse to grant more than the writer holds. Raises ApiError."""
    kind = call.kind
    if obj is None or kind.group != GROUP or SUPERUSERS in call.user.groups:
        return
    rbac = call.services.extras.get("rbac")
    if not isinstance(rbac, Rbac) or (old is not None and _substance(obj) == _substance(old)):
        return
    namespace = call.info.namespace
    if kind.kind in _ROLES:
        asked = RequestInfo("", "escalate", True, GROUP, "*", kind.plural, "", namespace, call.info.name)
        rules: Sequence[Object] | None = obj.get("rules") or []
    elif kind.kind in _BINDINGS:
        ref = obj["roleRef"]
        plural = "clusterroles" if ref["kind"] == "ClusterRole" else "roles"
        asked = RequestInfo("", "bind", True, GROUP, "*", plural, "", namespace, ref["name"])
        rules = rbac.role_rules(namespace, ref)
        if rules is None and rbac(call.user, asked) is not None:
            raise errors.not_found(GROUP, plural, ref["name"])
    else:
        return
    if rbac(call.user, asked) is None:
        return
    missing = uncovered(rbac.held(call.user, namespace), rules or [])
    if missing:
        groups = " ".join(_quoted(group) for group in call.user.groups)
        shown = "\n".join(sorted({_shown(rule) for rule in _compact(missing)}))
        text = (
            f"user {_quoted(call.user.name)} (groups=[{groups}]) is attempting to grant RBAC permissions not "
            f"currently held:\n{shown}"
        )
        raise errors.forbidden(GROUP, kind.plural, obj["metadata"].get("name", ""), text)


def _substance(obj: Object) -> Object:
    """An object without what the garbage collector writes."""
    meta = {key: value for key, value in obj["metadata"].items() if key not in _HOUSEKEEPING}
    return {**obj, "metadata": meta}


def uncovered(owned: Sequence[Object], wanted: Sequence[Object]) -> list[Object]:
    """The parts of the wanted rules that no owned rule covers, each as small as can be."""
    return [part for rule in wanted for part in _parts(rule) if not any(_covers(own, part) for own in owned)]


def _parts(rule: Object) -> Iterator[Object]:
    for group in rule.get("apiGroups") or ():
        for resource in rule.get("resources") or ():
            for verb in rule["verbs"]:
                part: Object = {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
                names = rule.get("resourceNames")
                yield from ({**part, "resourceNames": [name]} for name in names) if names else (part,)
    for url in rule.get("nonResourceURLs") or ():
        yield from ({"nonResourceURLs": [url], "verbs": [verb]} for verb in rule["verbs"])


def _covers(own: Object, part: Object) -> bool:
    def has(key: str, wildcard: str = "*") -> bool:
        owned, wanted = own.get(key) or (), part.get(key)
        return not wanted or wildcard in owned or wanted[0] in owned

    names = own.get("resourceNames") or ()
    if names and (part.get("resourceNames") or [None])[0] not in names:
        return False
    if not has("verbs") or not has("apiGroups"):
        return False
    if resource := (part.get("resources") or [""])[0]:
        _, slash, sub = resource.partition("/")
        if not has("resources") and not (slash and f"*/{sub}" in (own.get("resources") or ())):
            return False
    url = (part.get("nonResourceURLs") or [""])[0]
    return not url or any(_path_covers(path, url) for path in own.get("nonResourceURLs") or ())


def _path_covers(own: str, path: str) -> bool:
    return own == path or (own.endswith("*") and path.startswith(own.rstrip("*")))


def _compact(parts: Sequence[Object]) -> list[Object]:
    """Parts that differ only in their verb, as one."""
    out: list[Object] = []
    known: dict[tuple[Any, ...], Object] = {}
    for part in parts:
        if part.get("nonResourceURLs"):
            out.append(part)
            continue
        key = (part["apiGroups"][0], part["resources"][0], *(part.get("resourceNames") or ()))
        if key in known:
            known[key]["verbs"] += part["verbs"]
        else:
            known[key] = {**part, "verbs": list(part["verbs"])}
    return [*out, *known.values()]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _shown(rule: Object) -> str:
    """A rule as errors show it."""
    titles = {
        "apiGroups": "APIGroups",
        "resources": "Resources",
        "nonResourceURLs": "NonResourceURLs",
        "resourceNames": "ResourceNames",
        "verbs": "Verbs",
    }
    parts = [
        f"{title}:[{' '.join(_quoted(value) for value in rule[key])}]" for key, title in titles.items() if rule.get(key)
    ]
    return "{" + ", ".join(parts) + "}"
