"""Which flow schema a request belongs to: subjects and rules against a user and what they ask for. Pure.

Called by `gate.py`, which remembers the answers. Source: apiserver's pkg/util/flowcontrol/rule.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from steersman.api.resource import Object
from steersman.apiserver.call import User
from steersman.apiserver.request import RequestInfo

_ACCOUNT = "system:serviceaccount:"


def in_order(schemas: Iterable[Object]) -> list[Object]:
    """As they are asked: by precedence, then by name."""
    return sorted(schemas, key=lambda one: (one["spec"].get("matchingPrecedence", 1000), one["metadata"]["name"]))


def matches(schema: Object, user: User, info: RequestInfo) -> bool:
    """Whether one of the schema's rules has both the user and the request."""
    for rule in schema["spec"].get("rules") or ():
        if any(_is_subject(subject, user) for subject in rule.get("subjects") or ()):
            if info.is_resource:
                found = any(_resource(each, info) for each in rule.get("resourceRules") or ())
            else:
                found = any(_path(each, info) for each in rule.get("nonResourceRules") or ())
            if found:
                return True
    return False


def names_namespaces(schema: Object) -> bool:
    """Whether it matters to the schema in which namespace something is."""
    rules = [each for rule in schema["spec"].get("rules") or () for each in rule.get("resourceRules") or ()]
    return any((rule.get("namespaces") or []) not in (["*"], []) for rule in rules)


def distinguisher(schema: Object) -> str:
    """`ByUser`, `ByNamespace`, or nothing: the whole schema is one flow."""
    return str((schema["spec"].get("distinguisherMethod") or {}).get("type", ""))


def _is_subject(subject: Object, user: User) -> bool:
    kind = subject.get("kind")
    if kind == "User":
        return (subject.get("user") or {}).get("name") in ("*", user.name)
    if kind == "Group":
        wanted = (subject.get("group") or {}).get("name")
        return wanted == "*" or wanted in user.groups
    if kind == "ServiceAccount":
        account = subject.get("serviceAccount") or {}
        start = f"{_ACCOUNT}{account.get('namespace')}:"
        return user.name.startswith(start) and account.get("name") in ("*", user.name[len(start) :])
    return False


def _resource(rule: Object, info: RequestInfo) -> bool:
    wanted = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    return (
        _has(rule.get("verbs"), info.verb)
        and _has(rule.get("resources"), wanted)
        and _has(rule.get("apiGroups"), info.group)
        and (_has(rule.get("namespaces"), info.namespace) if info.namespace else bool(rule.get("clusterScope")))
    )


def _path(rule: Object, info: RequestInfo) -> bool:
    if not _has(rule.get("verbs"), info.verb):
        return False
    for wanted in rule.get("nonResourceURLs") or ():
        if wanted in ("*", info.path) or info.path.startswith(wanted.removesuffix("*").rstrip("/") + "/"):
            return True
    return False


def _has(listed: Sequence[str] | None, wanted: str) -> bool:
    return listed is not None and (wanted in listed or listed == ["*"])
