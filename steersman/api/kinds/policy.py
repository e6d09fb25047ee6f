"""PodDisruptionBudget.

Source: ValidatePodDisruptionBudget, pkg/registry/policy/poddisruptionbudget/strategy.go, printPodDisruptionBudget.
"""

from __future__ import annotations

from steersman.api import conditions, labels, names
from steersman.api.errors import FieldError
from steersman.api.kind import Behavior, Cell, Column, Update
from steersman.api.kinds import strategy, workload
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, dig, number
from steersman.api.validation import Struct, invalid, not_negative, not_supported, struct

_STATUS = {"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0}
_EVICTION = ("AlwaysAllow", "IfHealthyBudget")


def default(budget: Object) -> None:
    """Counters are always there."""
    budget.setdefault("spec", {})
    status = budget.setdefault("status", {})
    for key, value in _STATUS.items():
        status.setdefault(key, value)


def validate(budget: Object) -> list[FieldError]:
    """One bound, a selector, a policy."""
    spec = budget["spec"]
    out: list[FieldError] = []
    if "minAvailable" in spec and "maxUnavailable" in spec:
        shown = struct(spec, MinAvailable=None, Selector=None, MaxUnavailable=None, UnhealthyPodEvictionPolicy=None)
        shown = Struct({**(shown or {}), "Selector": labels.shown(spec.get("selector"))})
        out.append(invalid("spec", shown, "minAvailable and maxUnavailable cannot be both set"))
    for key in ("minAvailable", "maxUnavailable"):
        if key in spec:
            out += workload.int_or_percent(f"spec.{key}", spec[key])
            out += workload.at_most_all(f"spec.{key}", spec[key])
    out += labels.validate(spec.get("selector"), "spec.selector")
    policy = spec.get("unhealthyPodEvictionPolicy")
    if policy is not None and policy not in _EVICTION:
        out.append(not_supported("spec.unhealthyPodEvictionPolicy", policy, _EVICTION))
    return out


def validate_status(new: Object, old: Object) -> list[FieldError]:
    """Conditions and counters."""
    status = new.get("status") or {}
    out = conditions.check("status.conditions", status.get("conditions") or ())
    return out + [error for key in _STATUS for error in not_negative(f"status.{key}", status.get(key))]


def _bound(key: str) -> Cell:
    def cell(budget: Object, now: float) -> str:
        value = dig(budget, "spec", key)
        return "N/A" if value is None else str(value)

    return cell


PODDISRUPTIONBUDGET = Behavior(
    "policy",
    "PodDisruptionBudget",
    order="v",
    default=default,
    validate=validate,
    prepare_create=strategy.begin(_STATUS, generations=True),
    updates={"status": Update(strategy.keep("spec"), validate_status, "u")},
    name_rule=names.path_segment,
    columns=(
        NAME,
        Column("Min Available", _bound("minAvailable")),
        Column("Max Unavailable", _bound("maxUnavailable")),
        number("Allowed Disruptions", "status", "disruptionsAllowed"),
        AGE,
    ),
)
