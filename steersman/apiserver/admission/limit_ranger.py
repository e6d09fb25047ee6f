"""LimitRanger: defaults and bounds of a namespace's LimitRanges for pods, containers and claims.

Source: plugin/pkg/admission/limitranger.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from steersman.api import errors, pods, quantity
from steersman.api.resource import Object
from steersman.apiserver.call import Call

_ANNOTATION = "kubernetes.io/limit-ranger"


def _items(call: Call) -> Iterator[Object]:
    """Every limit of every LimitRange of the namespace."""
    kind = call.services.registry.find("", "limitranges")
    if kind is None:
        return
    for item in call.storage.objects(kind, call.info.namespace):
        yield from item.obj()["spec"].get("limits") or ()


def _concerns(call: Call, obj: Object | None) -> bool:
    if obj is None or call.kind.group or call.info.subresource:
        return False
    if call.kind.kind == "Pod":
        return call.operation == "CREATE"
    return call.kind.kind == "PersistentVolumeClaim" and call.operation in ("CREATE", "UPDATE")


def mutate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Give containers the requests and limits that they do not have."""
    if obj is None or not _concerns(call, obj) or call.kind.kind != "Pod":
        return
    requests: dict[str, str] = {}
    limits: dict[str, str] = {}
    for limit in _items(call):
        if limit["type"] == "Container":
            for name, amount in (limit.get("defaultRequest") or {}).items():
                requests.setdefault(name, amount)
            for name, amount in (limit.get("default") or {}).items():
                limits.setdefault(name, amount)
    if not requests and not limits:
        return
    said: list[str] = []
    spec = obj["spec"]
    groups = (("container", spec["containers"]), ("init container", spec.get("initContainers") or []))
    for word, containers in groups:
        for container in containers:
            said += _default(container, word, requests, limits)
    if said:
        annotations = obj["metadata"].setdefault("annotations", {})
        annotations[_ANNOTATION] = "LimitRanger plugin set: " + "; ".join(said)


def _default(container: Object, word: str, requests: Mapping[str, str], limits: Mapping[str, str]) -> list[str]:
    resources = container.setdefault("resources", {})
    said = []
    for key, defaults in (("requests", requests), ("limits", limits)):
        given = dict(resources.get(key) or {})
        added = sorted(name for name in defaults if name not in given)
        if added:
            resources[key] = {**given, **{name: defaults[name] for name in added}}
            verb = "request" if key == "requests" else "limit"
            said.append(f"{', '.join(added)} {verb} for {word} {container['name']}")
    return said


def validate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Refuse what is out of bounds. Raises ApiError."""
    if obj is None or not _concerns(call, obj):
        return
    found: list[str] = []
    for limit in _items(call):
        if call.kind.kind == "PersistentVolumeClaim":
            if limit["type"] == "PersistentVolumeClaim":
                asked = (obj["spec"].get("resources") or {}).get("requests") or {}
                found += _check(limit, "PersistentVolumeClaim", asked, asked)
        elif limit["type"] == "Container":
            for container in [*obj["spec"]["containers"], *(obj["spec"].get("initContainers") or [])]:
                resources = container.get("resources") or {}
                found += _check(limit, "Container", resources.get("requests") or {}, resources.get("limits") or {})
        elif limit["type"] == "Pod":
            found += _check(limit, "Pod", pods.requests(obj), pods.limits(obj))
    if found:
        texts = list(dict.fromkeys(found))
        text = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
        raise errors.forbidden("", call.kind.plural, obj["metadata"].get("name", ""), text)


def _value(amount: Any) -> Fraction:
    return Fraction(quantity.parse(str(amount)).value)


def _check(limit: Object, word: str, requests: Mapping[str, Any], limits: Mapping[str, Any]) -> list[str]:
    found = []
    for name, least in (limit.get("min") or {}).items():
        if name not in requests:
            found.append(f"minimum {name} usage per {word} is {least}.  No request is specified")
        elif _value(requests[name]) < _value(least):
            found.append(f"minimum {name} usage per {word} is {least}, but request is {requests[name]}")
        elif name in limits and _value(limits[name]) < _value(least):
            found.append(f"minimum {name} usage per {word} is {least}, but limit is {limits[name]}")
    for name, most in (limit.get("max") or {}).items():
        if name not in limits:
            found.append(f"maximum {name} usage per {word} is {most}.  No limit is specified")
        elif _value(limits[name]) > _value(most):
            found.append(f"maximum {name} usage per {word} is {most}, but limit is {limits[name]}")
        elif name in requests and _value(requests[name]) > _value(most):
            found.append(f"maximum {name} usage per {word} is {most}, but request is {requests[name]}")
    for name, most in (limit.get("maxLimitRequestRatio") or {}).items():
        if name in requests and name in limits and _value(requests[name]):
            ratio = _value(limits[name]) / _value(requests[name])
            if ratio > _value(most):
                found.append(
                    f"{name} max limit to request ratio per {word} is {most}, but provided ratio is {float(ratio):.6f}"
                )
    return found
