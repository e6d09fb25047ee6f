"""Rules of resources: requests, limits, their names and amounts.

Owns the names of resources and `requirements`. Called for containers, pods, overhead, quotas and claims. Source:
ValidateResourceRequirements in pkg/apis/core/validation and pkg/apis/core/helper.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from steersman.api import names, quantity
from steersman.api.errors import FieldError
from steersman.api.validation import duplicate, forbidden, invalid, not_found, not_supported, required

Complaints = list[FieldError]
NameCheck = Callable[[str, str], Complaints]

CONTAINER = frozenset(("cpu", "memory", "ephemeral-storage"))
POD = ("cpu", "memory")
STANDARD = frozenset(
    (
        "cpu",
        "memory",
        "ephemeral-storage",
        "requests.cpu",
        "requests.memory",
        "requests.ephemeral-storage",
        "limits.cpu",
        "limits.memory",
        "limits.ephemeral-storage",
        "pods",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "storage",
        "requests.storage",
        "services.nodeports",
        "services.loadbalancers",
    )
)
INTEGERS = frozenset(
    (
        "pods",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
        "services.loadbalancers",
    )
)
NOT_INTEGER = "must be an integer"
_HUGE = "hugepages-"
_NATIVE = "kubernetes.io/"


def is_huge_pages(name: str) -> bool:
    """`hugepages-2Mi` and the like."""
    return name.startswith(_HUGE)


def is_native(name: str) -> bool:
    """One of Kubernetes' own."""
    return "/" not in name or _NATIVE in name


def is_extended(name: str) -> bool:
    """A device's, such as `example.com/gpu`."""
    return not is_native(name) and not name.startswith("requests.") and not names.qualified(f"requests.{name}")


def is_integer(name: str) -> bool:
    """Counted, not measured."""
    return name in INTEGERS or is_extended(name)


def overcommit_allowed(name: str) -> bool:
    """Whether limits may be larger than requests."""
    return is_native(name) and not is_huge_pages(name)


def resource_name(path: str, name: str) -> Complaints:
    """A name of any resource."""
    found = [invalid(path, name, text) for text in names.qualified(name)]
    if not found and "/" not in name and name not in STANDARD and not is_huge_pages(name):
        found.append(invalid(path, name, "must be a standard resource type or fully qualified"))
    return found


def container_resource_name(path: str, name: str) -> Complaints:
    """A name that a container may use."""
    if name in CONTAINER:
        return []
    found = resource_name(path, name)
    if "/" not in name:
        if not is_huge_pages(name):
            found.append(invalid(path, name, "must be a standard resource for containers"))
    elif not is_native(name) and not is_extended(name):
        found.append(invalid(path, name, "doesn't follow extended resource name standard"))
    return found


def pod_resource_name(path: str, name: str) -> Complaints:
    """A name that a pod as a whole may use."""
    found = resource_name(path, name)
    if not found and name not in POD and not is_huge_pages(name):
        found.append(not_supported(path, name, ("cpu", _HUGE, "memory")))
    return found


def amount(path: str, name: str, value: str) -> Complaints:
    """Not negative, and whole where the resource is counted."""
    parsed = quantity.parse(value)
    found = []
    if parsed.nanos < 0:
        found.append(invalid(path, value, "must be greater than or equal to 0"))
    if parsed.nanos % 10**9 and is_integer(name):
        found.append(invalid(path, value, NOT_INTEGER))
    return found


def _huge_page(path: str, name: str, value: str) -> Complaints:
    try:
        size = quantity.parse(name.removeprefix(_HUGE)).nanos
    except ValueError as error:
        return [invalid(path, value, str(error))]
    if not size or quantity.parse(value).nanos % size:
        text = f"{value} is not positive integer multiple of {name.removeprefix(_HUGE)}"
        return [invalid(path, value, text)]
    return []


def requirements(
    path: str,
    resources: Mapping[str, Any] | None,
    claims: Collection[str] = (),
    check: NameCheck = container_resource_name,
) -> Complaints:
    """A ResourceRequirements; `claims` are the names in spec.resourceClaims."""
    if not resources:
        return []
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    found: Complaints = []
    for name, value in limits.items():
        found += _entry(f"{path}.limits[{name}]", name, value, check)
    for name, value in requests.items():
        found += _entry(f"{path}.requests[{name}]", name, value, check)
        if name in limits:
            order = quantity.compare(value, limits[name])
            if order and not overcommit_allowed(name):
                text = f"must be equal to {name} limit of {limits[name]}"
                found.append(invalid(f"{path}.requests", value, text))
            elif order > 0:
                text = f"must be less than or equal to {name} limit of {limits[name]}"
                found.append(invalid(f"{path}.requests", value, text))
        elif not overcommit_allowed(name):
            found.append(required(f"{path}.limits", "Limit must be set for non overcommitable resources"))
    every = {*limits, *requests}
    if any(is_huge_pages(name) for name in every) and every.isdisjoint(POD):
        found.append(forbidden(path, "HugePages require cpu or memory"))
    return found + _claims(f"{path}.claims", resources.get("claims") or [], claims)


def _entry(path: str, name: str, value: str, check: NameCheck) -> Complaints:
    found = check(path, name) + amount(path, name, value)
    return found + _huge_page(path, name, value) if is_huge_pages(name) else found


def _claims(path: str, wanted: list[dict[str, Any]], known: Collection[str]) -> Complaints:
    found: Complaints = []
    seen: set[str] = set()
    for i, claim in enumerate(wanted):
        name, request = claim.get("name") or "", claim.get("request")
        here = f"{path}[{i}]"
        if not name:
            found.append(required(here))
            continue
        key = f"{name}/{request}" if request else name
        if name in seen:
            found.append(duplicate(here, name))
        else:
            if request:
                found += [invalid(f"{here}.request", request, text) for text in names.dns_label(request)]
            if key in seen:
                found.append(duplicate(here, key))
            elif not request:
                found += [duplicate(here, name) for each in seen if each.startswith(f"{name}/")]
            seen.add(key)
        if name not in known:
            which = f": {', '.join(sorted(known))}" if known else " which is empty"
            text = f"must be one of the names in pod.spec.resourceClaims{which}"
            found.append(not_found(here, name, text))
    return found
