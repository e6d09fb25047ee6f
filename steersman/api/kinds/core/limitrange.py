"""LimitRange: defaults from bounds, and bounds that agree.

Source: SetDefaults_LimitRangeItem, ValidateLimitRange.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steersman.api import names, quantity
from steersman.api.errors import FieldError
from steersman.api.kind import Behavior
from steersman.api.kinds.podspec import defaults, resources
from steersman.api.resource import Object
from steersman.api.validation import duplicate, forbidden, invalid, required

_TYPES = ("Pod", "Container", "PersistentVolumeClaim")
_LISTS = ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio")


def default(limits: Object) -> None:
    """A container's default is its maximum, its default request its default or minimum."""
    for item in _items(limits.setdefault("spec", {})):
        for key in _LISTS:
            defaults.resource_list(item.get(key))
        if item.get("type") == "Container":
            item["default"] = {**(item.get("max") or {}), **(item.get("default") or {})}
            request = {**(item.get("min") or {}), **item["default"], **(item.get("defaultRequest") or {})}
            item["defaultRequest"] = request
            for key in ("default", "defaultRequest"):
                if not item[key]:
                    del item[key]


def _items(spec: Object) -> list[Object]:
    """The limits, which are always shown, if as nothing."""
    spec["limits"] = spec.get("limits") or None
    return spec["limits"] or []


def prepare_create(limits: Object) -> None:
    """One without a name gets one that nobody has."""
    metadata = limits["metadata"]
    if not metadata.get("name"):
        metadata["name"] = metadata.get("uid") or ""
    metadata.pop("generation", None)


def validate(limits: Object) -> list[FieldError]:
    """Each type once; min, default request, default and max in that order."""
    out: list[FieldError] = []
    seen: set[str] = set()
    for i, item in enumerate(limits["spec"].get("limits") or ()):
        here, kind = f"spec.limits[{i}]", item.get("type") or ""
        wrong = names.qualified(kind)
        if not wrong and "/" not in kind and kind not in _TYPES:
            wrong = ["must be a standard limit type or fully qualified"]
        out += [invalid(f"{here}.type", kind, text) for text in wrong]
        if kind in seen:
            out.append(duplicate(f"{here}.type", kind))
        seen.add(kind)
        out += _names(here, item, kind, ("max", "min"))
        if kind == "Pod":
            for key in ("default", "defaultRequest"):
                if item.get(key):
                    out.append(forbidden(f"{here}.{key}", "may not be specified when `type` is 'Pod'"))
        else:
            out += _names(here, item, kind, ("default", "defaultRequest"))
        if kind == "PersistentVolumeClaim" and not _any(item, "storage"):
            out.append(
                required(
                    f"{here}.limits", "either minimum or maximum storage value is required, but neither was provided"
                )
            )
        out += _names(here, item, kind, ("maxLimitRequestRatio",))
        for name in sorted({name for key in _LISTS for name in item.get(key) or ()}):
            out += _order(here, item, name)
    return out


def _names(path: str, item: Mapping[str, Any], kind: str, fields: tuple[str, ...]) -> list[FieldError]:
    check = resources.container_resource_name if kind in ("Pod", "Container") else resources.resource_name
    return [error for key in fields for name in item.get(key) or () for error in check(f"{path}.{key}[{name}]", name)]


def _any(item: Mapping[str, Any], name: str) -> bool:
    return any(name in (item.get(key) or {}) for key in ("min", "max"))


def _order(path: str, item: Mapping[str, Any], name: str) -> list[FieldError]:
    amounts = {key: (item.get(key) or {}).get(name) for key in _LISTS}
    pairs = (
        ("min", "max", "min value {} is greater than max value {}", "min"),
        ("min", "defaultRequest", "min value {} is greater than default request value {}", "defaultRequest"),
        ("defaultRequest", "max", "default request value {} is greater than max value {}", "defaultRequest"),
        ("min", "default", "min value {} is greater than default value {}", "default"),
        ("default", "max", "default value {} is greater than max value {}", "default"),
        (
            "defaultRequest",
            "default",
            "default request value {} is greater than default limit value {}",
            "defaultRequest",
        ),
    )
    out: list[FieldError] = []
    for low, high, text, field in pairs:
        small, large = amounts[low], amounts[high]
        if small is not None and large is not None and quantity.compare(small, large) > 0:
            shown = small if (field == low) is not (field == "default") else large
            out.append(invalid(f"{path}.{field}[{name}]", shown, text.format(small, large)))
    ratio = amounts["maxLimitRequestRatio"]
    if ratio is not None and quantity.parse(ratio).nanos < 10**9:
        out.append(invalid(f"{path}.maxLimitRequestRatio[{name}]", ratio, f"ratio {ratio} is less than 1"))
    low, high = amounts["min"], amounts["max"]
    if ratio is not None and low is not None and high is not None and quantity.parse(low).nanos > 0:
        most = quantity.parse(high).nanos / quantity.parse(low).nanos
        if quantity.parse(ratio).nanos / 10**9 > most:
            text = f"ratio {ratio} is greater than max/min = {most:f}"
            out.append(invalid(f"{path}.maxLimitRequestRatio[{name}]", ratio, text))
    given, asked = amounts["default"], amounts["defaultRequest"]
    uneven = given is not None and asked is not None and quantity.compare(given, asked) != 0
    if uneven and not resources.overcommit_allowed(name):
        text = f"default value {given} must equal to defaultRequest value {asked} in {name}"
        out.append(invalid(f"{path}.defaultRequest[{name}]", asked, text))
    return out


LIMITRANGE = Behavior("", "LimitRange", order="nv", default=default, validate=validate, prepare_create=prepare_create)
