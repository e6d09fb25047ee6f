"""What the kinds of resource.k8s.io have in common: names, selectors in CEL, configuration, taints, lists and sets.

Source: kubernetes' pkg/apis/resource/validation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from steersman.api import cel, deviceselectors, names
from steersman.api.errors import FieldError
from steersman.api.kinds.podspec.volumes import driver_name
from steersman.api.validation import (
    duplicate,
    each_invalid,
    forbidden,
    invalid,
    not_supported,
    required,
    too_long,
    too_many,
)

Complaints = list[FieldError]
_MOST_SELECTORS, _LONGEST_SELECTOR = 32, 10 * 1024
_LONGEST_DATA = 10 * 1024
_LONGEST_POOL, _LONGEST_ID = 253, 32
EFFECTS = ("NoExecute", "NoSchedule", "None")
_OPERATORS = ("Equal", "Exists")


def each(
    path: str,
    found: Sequence[Any] | None,
    most: int,
    check: Callable[[str, Any], Complaints],
    key: Callable[[Any], Any] | None = None,
    *,
    encoded: bool = False,
) -> Complaints:
    """A list of at most `most` (below zero: any number); with `key`, no two alike. `encoded`: keys are JSON."""
    items = found or ()
    if 0 <= most < len(items):
        return [too_many(path, len(items), most)]
    out = [error for at, item in enumerate(items) for error in check(f"{path}[{at}]", item)]
    seen = set()
    for at, item in enumerate(items if key is not None else ()):
        assert key is not None
        mark = key(item)
        if mark in seen:
            here = f"{path}[{at}]"
            same = FieldError("FieldValueDuplicate", here, f"Duplicate value: {mark}", mark)
            out.append(same if encoded else duplicate(here, mark))
        seen.add(mark)
    return out


def label(path: str, name: str) -> Complaints:
    """A DNS label, which an empty name is not."""
    return each_invalid(path, name, names.dns_label(name))


def named(path: str, name: str) -> Complaints:
    """A DNS label that is there."""
    return label(path, name) if name else [required(path)]


def subdomain(path: str, name: str) -> Complaints:
    """A DNS subdomain that is there."""
    return each_invalid(path, name, names.dns_subdomain(name)) if name else [required(path)]


def label_key(path: str, name: str) -> Complaints:
    """A label's key, which conditions and taints have too."""
    return each_invalid(path, name, names.qualified(name))


def pool_name(path: str, name: str) -> Complaints:
    """DNS subdomains with slashes between."""
    if not name:
        return [required(path)]
    out = [too_long(path, _LONGEST_POOL)] if len(name) > _LONGEST_POOL else []
    return out + [error for part in name.split("/") for error in subdomain_part(path, part)]


def subdomain_part(path: str, name: str) -> Complaints:
    """A DNS subdomain, of which an empty one is none."""
    return each_invalid(path, name, names.dns_subdomain(name))


def qualified(path: str, name: str) -> Complaints:
    """An attribute's or capacity's name: a C identifier, perhaps of a domain."""
    domain, slash, key = name.partition("/")
    if not slash:
        return _identifier(path, name)
    if "/" in key:
        return []
    out = driver_name(path, domain) if domain else [invalid(path, "", "the domain must not be empty")]
    return out + (_identifier(path, key) if key else [invalid(path, "", "the name must not be empty")])


def fully_qualified(path: str, name: str) -> Complaints:
    """A name with its domain."""
    out = qualified(path, name)
    if "/" not in name:
        out.append(invalid(path, name, "a fully qualified name must be a domain and a name separated by a slash"))
    return out


def _identifier(path: str, name: str) -> Complaints:
    out = [too_long(path, _LONGEST_ID)] if len(name) > _LONGEST_ID else []
    return out + each_invalid(path, name, names.c_identifier(name))


def selectors(path: str, found: Sequence[Mapping[str, Any]] | None) -> Complaints:
    """Expressions that compile, and do not cost too much."""
    return each(path, found, _MOST_SELECTORS, _selector)


def _selector(path: str, found: Mapping[str, Any]) -> Complaints:
    if found.get("cel") is None:
        return [required(f"{path}.cel")]
    path, expression = f"{path}.cel.expression", found["cel"].get("expression") or ""
    if len(expression.encode()) > _LONGEST_SELECTOR:
        return [too_long(path, _LONGEST_SELECTOR)]
    try:
        cost = deviceselectors.cost(expression)
    except cel.CompileError as error:
        return [invalid(path, expression, f"compilation failed: {error}")]
    except ValueError as error:
        return [invalid(path, expression, str(error))]
    return [forbidden(path, "too complex, exceeds cost limit")] if cost > deviceselectors.MOST_COST else []


def configuration(path: str, found: Mapping[str, Any]) -> Complaints:
    """What is for a driver alone to understand."""
    opaque = found.get("opaque")
    if opaque is None:
        return [required(f"{path}.opaque")]
    out = driver_name(f"{path}.opaque.driver", opaque.get("driver") or "")
    return out + raw(f"{path}.opaque.parameters", opaque.get("parameters"))


def raw(path: str, found: Any) -> Complaints:
    """Any JSON object, if it is not too large."""
    if found is None:
        return [required(path)]
    if len(msgspec.json.encode(found)) > _LONGEST_DATA:
        return [too_long(path, _LONGEST_DATA)]
    return [] if isinstance(found, dict) else [invalid(path, "<value omitted>", "must be a valid JSON object")]


def taint(path: str, found: Mapping[str, Any]) -> Complaints:
    """What keeps users away from a device."""
    out = label_key(f"{path}.key", found.get("key") or "")
    if value := found.get("value"):
        out += each_invalid(f"{path}.value", value, names.label_value(value))
    effect = found.get("effect") or ""
    if not effect:
        out.append(required(f"{path}.effect"))
    elif effect not in EFFECTS:
        out.append(not_supported(f"{path}.effect", effect, EFFECTS))
    return out


def toleration(path: str, found: Mapping[str, Any]) -> Complaints:
    """Which taints are put up with."""
    key, value, operator = found.get("key") or "", found.get("value") or "", found.get("operator") or ""
    out = label_key(f"{path}.key", key) if key else []
    if operator == "Exists":
        if value:
            out.append(invalid(f"{path}.value", value, "must be empty for operator `Exists`"))
    elif operator == "Equal":
        out += each_invalid(f"{path}.value", value, names.label_value(value))
    elif not operator:
        out.append(required(f"{path}.operator"))
    else:
        out.append(not_supported(f"{path}.operator", operator, _OPERATORS))
    effect = found.get("effect") or ""
    if effect and effect not in EFFECTS:
        out.append(not_supported(f"{path}.effect", effect, EFFECTS))
    return out


def binding(path: str, found: Mapping[str, Any]) -> Complaints:
    """Conditions that must come true before a device is used, and those that say that it failed (KEP-5007)."""
    wanted, failures = (found.get(key) or () for key in ("bindingConditions", "bindingFailureConditions"))
    out: Complaints = []
    for key, listed in (("bindingConditions", wanted), ("bindingFailureConditions", failures)):
        out += each(f"{path}.{key}", listed, 4, label_key)
        seen: set[str] = set()
        for at, name in enumerate(listed):
            if name in seen:
                out.append(duplicate(f"{path}.{key}[{at}]", name))
            seen.add(name)
            if listed is failures and name in wanted:
                text = "bindingFailureConditions must not overlap with bindingConditions"
                out.append(invalid(f"{path}.{key}[{at}]", name, text))
    if failures and not wanted:
        text = "bindingConditions are required to use bindingFailureConditions"
        out.append(invalid(f"{path}.bindingConditions", found.get("bindingConditions"), text))
    if wanted and not failures:
        text = "bindingFailureConditions are required to use bindingConditions"
        out.append(invalid(f"{path}.bindingFailureConditions", found.get("bindingFailureConditions"), text))
    return out
