"""Selectors of devices: CEL over one device of a ResourceSlice (KEP-4381).

Owns what an expression may name, whether it compiles and what it may cost, and running it on a device. Called by the
validation of claims and classes, and by the scheduler. Pure. Source: dynamic-resource-allocation's cel package.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from steersman.api import cel
from steersman.api.cel.quantities import QUANTITY, amount
from steersman.api.cel.texts import semver
from steersman.api.cel.types import BOOL, Type, map_of, object_of
from steersman.api.cel.values import type_name

MOST_COST = 1_000_000  # CELSelectorExpressionMaxCost
_MOST_PER_DEVICE = 32  # attributes and capacities
_DOMAIN, _ID, _DRIVER = (Type("string", (), size) for size in (63, 32, 63))
_ATTRIBUTE = Type("dyn", (), 64)
_FIELDS: Mapping[str, Type] = {
    "driver": _DRIVER,
    "allowMultipleAllocations": BOOL,
    "attributes": map_of(_DOMAIN, map_of(_ID, _ATTRIBUTE, _MOST_PER_DEVICE), _MOST_PER_DEVICE),
    "capacity": map_of(_DOMAIN, map_of(_ID, Type(QUANTITY), _MOST_PER_DEVICE), _MOST_PER_DEVICE),
}
_KNOWN: Mapping[str, Type] = {"device": object_of("kubernetes.DRADevice", _FIELDS.get)}
_KINDS = (BOOL.name, "dyn")


@lru_cache(maxsize=1024)
def program(expression: str) -> cel.Program:
    """The selector, ready to run. Raises CompileError, or ValueError when it cannot give a bool."""
    made = cel.compile(expression, _KNOWN, bindings=True)
    if made.type.name not in _KINDS:
        raise ValueError(f"must evaluate to bool or the unknown type, not {made.type}")
    return made


def cost(expression: str) -> int:
    """The most that a selector may cost. Raises as `program`."""
    return program(expression).estimate(_KNOWN.get, open_maps=True)


class _Domains(dict[str, dict[str, Any]]):
    """Attributes or capacities by domain; a domain that nobody uses is empty rather than missing."""

    def __missing__(self, domain: str) -> dict[str, Any]:
        return {}


def variables(driver: str, device: Mapping[str, Any]) -> Mapping[str, Any]:
    """A device (resource.k8s.io/v1 Device) as expressions see it. Raises CelError for a malformed version."""
    attributes, capacity = _Domains(), _Domains()
    for name, value in (device.get("attributes") or {}).items():
        domain, key = _qualified(name, driver)
        attributes.setdefault(domain, {})[key] = _value(name, value)
    for name, value in (device.get("capacity") or {}).items():
        domain, key = _qualified(name, driver)
        capacity.setdefault(domain, {})[key] = amount(value.get("value") or "0")
    return {
        "device": {
            "driver": driver,
            "allowMultipleAllocations": bool(device.get("allowMultipleAllocations")),
            "attributes": attributes,
            "capacity": capacity,
        }
    }


def _qualified(name: str, driver: str) -> tuple[str, str]:
    domain, slash, key = name.partition("/")
    return (domain, key) if slash else (driver, name)


def _value(name: str, attribute: Mapping[str, Any]) -> Any:
    for kind in ("int", "bool", "string"):
        if attribute.get(kind) is not None:
            return attribute[kind]
    if attribute.get("version") is not None:
        try:
            return semver(attribute["version"])
        except cel.CelError as error:
            raise cel.CelError(f"attribute {name}: parse semantic version: {error}") from error
    raise cel.CelError(f"attribute {name}: unsupported attribute value")


def selects(expression: str, values: Mapping[str, Any]) -> bool:
    """Whether a device suits, given as `variables` shows it. Raises CompileError, ValueError or CelError."""
    found, _ = program(expression).evaluate(values, limit=MOST_COST)
    if not isinstance(found, bool):
        raise cel.CelError(
            f"CEL result of type {type_name(found)} could not be converted to bool: type conversion error"
        )
    return found
