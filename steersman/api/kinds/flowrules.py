"""Rules of flow schemas and priority levels, word for word. Pure.

Called by `flowcontrol.py`. Source: pkg/apis/flowcontrol/validation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from steersman.api import names
from steersman.api.errors import FieldError
from steersman.api.resource import Object
from steersman.api.validation import duplicate, each_invalid, forbidden, invalid, not_supported, required, struct

_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch")
_MOST_QUEUES = 10_000_000
_HASH_BITS = 60
_NAMESPACES = "each member of this list must be '*' or a DNS-1123 label; "
_SUBJECTS = {"ServiceAccount": "serviceAccount", "User": "user", "Group": "group"}


def schema(spec: Object, name: str | None) -> list[FieldError]:
    """A FlowSchema's spec."""
    precedence, path = spec.get("matchingPrecedence") or 0, "spec.matchingPrecedence"
    out: list[FieldError] = []
    if precedence <= 0:
        out.append(invalid(path, precedence, "must be a positive value"))
    if precedence > 10_000:
        out.append(invalid(path, precedence, "must not be greater than 10000"))
    if precedence == 1 and name != "exempt":
        out.append(invalid(path, precedence, "only the schema named 'exempt' may have matchingPrecedence 1"))
    method = spec.get("distinguisherMethod")
    if method is not None and method.get("type") not in ("ByNamespace", "ByUser"):
        out.append(not_supported("spec.distinguisherMethod.type", struct(method, Type=""), ("ByNamespace", "ByUser")))
    level = (spec.get("priorityLevelConfiguration") or {}).get("name")
    if level:
        out += each_invalid("spec.priorityLevelConfiguration.name", level, names.dns_subdomain(level))
    else:
        out.append(required("spec.priorityLevelConfiguration.name", "must reference a priority level"))
    for at, rule in enumerate(spec.get("rules") or ()):
        out += _rule(rule, f"spec.rules[{at}]")
    return out


def _rule(rule: Object, path: str) -> list[FieldError]:
    out: list[FieldError] = []
    if not rule.get("subjects"):
        out.append(required(f"{path}.subjects", "subjects must contain at least one value"))
    for at, subject in enumerate(rule.get("subjects") or ()):
        out += _subject(subject, f"{path}.subjects[{at}]")
    if not rule.get("resourceRules") and not rule.get("nonResourceRules"):
        out.append(required(path, "at least one of resourceRules and nonResourceRules has to be non-empty"))
    for at, each in enumerate(rule.get("resourceRules") or ()):
        out += _resources(each, f"{path}.resourceRules[{at}]")
    for at, each in enumerate(rule.get("nonResourceRules") or ()):
        out += _paths(each, f"{path}.nonResourceRules[{at}]")
    return out


def _subject(subject: Object, path: str) -> list[FieldError]:
    kind = subject.get("kind") or ""
    if kind not in _SUBJECTS:
        return [not_supported(f"{path}.kind", kind, sorted(_SUBJECTS))]
    field, found = _SUBJECTS[kind], subject.get(_SUBJECTS[kind])
    out: list[FieldError] = []
    if found is None:
        out.append(required(f"{path}.{field}", f"{field} is required when subject kind is '{kind}'"))
    else:
        out += _account(found, f"{path}.{field}") if kind == "ServiceAccount" else []
        if kind != "ServiceAccount" and not found.get("name"):
            out.append(required(f"{path}.{field}.name"))
    for other in ("serviceAccount", "user", "group"):
        if other != field and subject.get(other) is not None:
            owner = next(name for name, value in _SUBJECTS.items() if value == other)
            out.append(forbidden(f"{path}.{other}", f"{other} is forbidden when subject kind is not '{owner}'"))
    return out


def _account(account: Object, path: str) -> list[FieldError]:
    name, namespace = account.get("name") or "", account.get("namespace") or ""
    out: list[FieldError] = []
    if not name:
        out.append(required(f"{path}.name"))
    elif name != "*":
        out += each_invalid(f"{path}.name", name, names.dns_subdomain(name))
    if namespace:
        out += each_invalid(f"{path}.namespace", namespace, names.dns_label(namespace))
    else:
        out.append(required(f"{path}.namespace", "must specify namespace for service account"))
    return out


def _verbs(rule: Object, path: str) -> list[FieldError]:
    verbs = rule.get("verbs") or []
    if not verbs:
        return [required(f"{path}.verbs", "verbs must contain at least one value")]
    if "*" in verbs:
        return _alone(verbs, f"{path}.verbs", "verbs")
    if not set(verbs) <= set(_VERBS):
        return [not_supported(f"{path}.verbs", verbs, _VERBS)]
    return []


def _alone(values: Sequence[str], path: str, what: str) -> list[FieldError]:
    if "*" in values and len(values) > 1:
        return [invalid(path, values, f"if '*' is present, must not specify other {what}")]
    return []


def _resources(rule: Object, path: str) -> list[FieldError]:
    out = _verbs(rule, path)
    for field, what, one in (
        ("apiGroups", "api groups", "api group"),
        ("resources", "resources", "resource"),
    ):
        values = rule.get(field) or []
        if not values:
            out.append(required(f"{path}.{field}", f"resource rules must supply at least one {one}"))
        out += _alone(values, f"{path}.{field}", what)
    namespaces = rule.get("namespaces") or []
    if not namespaces and not rule.get("clusterScope"):
        text = "resource rules that are not cluster scoped must supply at least one namespace"
        out.append(required(f"{path}.namespaces", text))
    elif "*" in namespaces:
        out += _alone(namespaces, f"{path}.namespaces", "namespaces")
    else:
        for at, name in enumerate(namespaces):
            details = [_NAMESPACES + each for each in names.dns_label(name)]
            out += each_invalid(f"{path}.namespaces[{at}]", name, details)
    return out


def _paths(rule: Object, path: str) -> list[FieldError]:
    out = _verbs(rule, path)
    urls, where = rule.get("nonResourceURLs") or [], f"{path}.nonResourceURLs"
    if not urls:
        out.append(required(where, "nonResourceURLs must contain at least one value"))
    elif "*" in urls:
        out += _alone(urls, where, "non-resource URLs")
    else:
        found = [(f"{where}[{at}]", url, _url(url)) for at, url in enumerate(urls)]
        out += [invalid(at, url, problem) for at, url, problem in found if problem]
    return out


def _url(url: str) -> str:
    if not url:
        return "must not be empty"
    if url == "/":
        return ""
    if not url.startswith("/"):
        return "must start with slash"
    if " " in url:
        return "must not contain white-space"
    if "//" in url:
        return "must not contain double slash"
    if "*" in url and (url.count("*") > 1 or not url.endswith("/*")):
        return "wildcard can only do suffix matching"
    return ""


def level(spec: Object, name: str | None) -> list[FieldError]:
    """A PriorityLevelConfiguration's spec."""
    kind, limited, exempt = spec.get("type") or "", spec.get("limited"), spec.get("exempt")
    out: list[FieldError] = []
    if (name == "exempt") != (kind == "Exempt"):
        out.append(invalid("spec.type", kind, "must be 'Exempt' if and only if `name` is 'exempt'"))
    if kind == "Exempt":
        if limited is not None:
            out.append(forbidden("spec.limited", "must be nil if the type is not Limited"))
        out += _shares(exempt or {}, "spec.exempt")
    elif kind == "Limited":
        if exempt is not None:
            out.append(forbidden("spec.exempt", "must be nil if the type is Limited"))
        if limited is None:
            out.append(required("spec.limited", "must not be empty when type is Limited"))
        else:
            out += _limited(limited)
    else:
        out.append(not_supported("spec.type", kind, ("Exempt", "Limited")) if kind else required("spec.type"))
    return out


def _shares(part: Object, path: str) -> list[FieldError]:
    found = [(field, part.get(field, 0)) for field in ("nominalConcurrencyShares", "assuredConcurrencyShares")]
    text = "must be a non-negative integer"
    out = [invalid(f"{path}.{field}", shares, text) for field, shares in found if shares < 0]
    return out if path == "spec.limited" else out + _lendable(part, path)


def _lendable(part: Object, path: str) -> list[FieldError]:
    percent = part.get("lendablePercent", 0)
    if 0 <= percent <= 100:
        return []
    return [invalid(f"{path}.lendablePercent", percent, "must be between 0 and 100, inclusive")]


def _limited(limited: Object) -> list[FieldError]:
    out = _shares(limited, "spec.limited")
    response, path = limited.get("limitResponse") or {}, "spec.limited.limitResponse"
    kind, queuing = response.get("type") or "", response.get("queuing")
    if kind == "Reject":
        if queuing is not None:
            out.append(forbidden(f"{path}.queuing", "must be nil if limited.limitResponse.type is not Limited"))
    elif kind == "Queue":
        text = "must not be empty if limited.limitResponse.type is Limited"
        out += [required(f"{path}.queuing", text)] if queuing is None else _queuing(queuing, f"{path}.queuing")
    else:
        out.append(not_supported(f"{path}.type", kind, ("Queue", "Reject")) if kind else required(f"{path}.type"))
    out += _lendable(limited, "spec.limited")
    if (percent := limited.get("borrowingLimitPercent") or 0) < 0:
        text = "if specified, must be a non-negative integer"
        out.append(invalid("spec.limited.borrowingLimitPercent", percent, text))
    return out


def _queuing(queuing: Object, path: str) -> list[FieldError]:
    length, queues, hand = (queuing.get(key) or 0 for key in ("queueLengthLimit", "queues", "handSize"))
    out: list[FieldError] = []
    if length <= 0:
        out.append(invalid(f"{path}.queueLengthLimit", length, "must be positive"))
    if queues <= 0:
        out.append(invalid(f"{path}.queues", queues, "must be positive"))
    elif queues > _MOST_QUEUES:
        out.append(invalid(f"{path}.queues", queues, f"must not be greater than {_MOST_QUEUES}"))
    if hand <= 0:
        out.append(invalid(f"{path}.handSize", hand, "must be positive"))
    elif hand > queues:
        out.append(invalid(f"{path}.handSize", hand, f"should not be greater than queues ({queues})"))
    elif math.ceil(math.log2(queues) * hand) > _HASH_BITS:
        text = f"required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {_HASH_BITS}"
        out.append(invalid(f"{path}.handSize", hand, text))
    return out


def conditions(found: Object) -> list[FieldError]:
    """The status of either kind: no two conditions of a type."""
    out: list[FieldError] = []
    seen: set[str] = set()
    for at, condition in enumerate((found.get("status") or {}).get("conditions") or ()):
        kind, path = condition.get("type") or "", f"status.conditions[{at}].type"
        if kind in seen:
            out.append(duplicate(path, kind))
        seen.add(kind)
        if not kind:
            out.append(required(path))
    return out
