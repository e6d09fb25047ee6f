"""How much of a device's capacity one allocation takes (KEP-5075): what is asked for, rounded as the driver wants it.

Owns the request policy. Called by the allocator. Pure. Source: dynamic-resource-allocation's consumable capacity.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steersman.api.quantity import BINARY_SI, Quantity, parse
from steersman.api.resource import Object

Capacity = Mapping[str, tuple[Quantity, Mapping[str, Any]]]
"""What a device has, and the policy of each."""
_UNIT = 10**9


def suits(capacity: Capacity, asked: Object, consumed: Mapping[str, int]) -> bool:
    """Whether the device has what is asked for beside what others have consumed (in billionths)."""
    wanted = asked.get("requests") or {}
    if any(name not in capacity for name in wanted):
        return False
    for name, (there, policy) in capacity.items():
        taken = _taken(there, policy, wanted.get(name))
        if _violates(taken, policy) or consumed.get(name, 0) + taken.nanos > there.nanos:
            return False
    return True


def amounts(capacity: Capacity, asked: Object) -> dict[str, Quantity]:
    """What one allocation of a shared device takes of each capacity."""
    wanted = asked.get("requests") or {}
    return {name: _taken(there, policy, wanted.get(name)) for name, (there, policy) in capacity.items()}


def _taken(there: Quantity, policy: Mapping[str, Any], wanted: Any) -> Quantity:
    if wanted is None:
        return parse(policy["default"]) if policy.get("default") is not None else there
    amount = parse(wanted)
    bounds = policy.get("validRange") or {}
    if bounds.get("min") is not None:
        return _rounded(amount, bounds)
    for each in policy.get("validValues") or ():
        if amount <= parse(each):
            return parse(each)
    return amount


def _rounded(amount: Quantity, bounds: Mapping[str, Any]) -> Quantity:
    least = parse(bounds["min"])
    if amount < least:
        return least
    if bounds.get("step") is None:
        return amount
    step = max(1, parse(bounds["step"]).whole())
    steps = -(-(amount.whole() - least.whole()) // step)
    return Quantity((least.whole() + steps * step) * _UNIT, BINARY_SI)


def _violates(taken: Quantity, policy: Mapping[str, Any]) -> bool:
    if policy.get("default") is not None and taken == parse(policy["default"]):
        return False
    if (bounds := policy.get("validRange")) is not None:
        if bounds.get("max") is not None and taken > parse(bounds["max"]):
            return True
        if bounds.get("step") is not None:
            least = parse(bounds.get("min") or "0").whole()
            return (taken.whole() - least) % max(1, parse(bounds["step"]).whole()) != 0
        return False
    values = policy.get("validValues")
    return bool(values) and all(taken != parse(each) for each in values)
