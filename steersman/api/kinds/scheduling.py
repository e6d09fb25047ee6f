"""PriorityClass.

Source: SetDefaults_PriorityClass, ValidatePriorityClass, printPriorityClass.
"""

from __future__ import annotations

from steersman.api.errors import FieldError
from steersman.api.kind import Behavior
from steersman.api.kinds import strategy
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, field, flag, number
from steersman.api.validation import forbidden, immutable, not_supported, required

HIGHEST_USER = 1_000_000_000
SYSTEM = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}

_PREFIX = "system-"
_POLICIES = ("PreemptLowerPriority", "Never")


def default(found: Object) -> None:
    """It preempts; the value is always there."""
    found.setdefault("preemptionPolicy", "PreemptLowerPriority")
    found.setdefault("value", 0)


def validate(found: Object) -> list[FieldError]:
    """System names and large values are reserved."""
    name, value = found["metadata"].get("name") or "", found.get("value") or 0
    out: list[FieldError] = []
    if name.startswith(_PREFIX):
        if problem := _not_system(name, value, default=bool(found.get("globalDefault"))):
            text = f"priority class names with '{_PREFIX}' prefix are reserved for system use only. error: {problem}"
            out.append(forbidden("metadata.name", text))
    elif value > HIGHEST_USER:
        out.append(forbidden("value", f"maximum allowed value of a user defined priority is {HIGHEST_USER}"))
    policy = found.get("preemptionPolicy")
    if policy == "":
        out.append(required("preemptionPolicy"))
    elif policy is not None and policy not in _POLICIES:
        out.append(not_supported("preemptionPolicy", policy, _POLICIES))
    return out


def _not_system(name: str, value: int, *, default: bool) -> str:
    if name not in SYSTEM:
        return f"{name} is not a known system priority class"
    if value != SYSTEM[name]:
        return f"value of {name} PriorityClass must be {SYSTEM[name]}"
    return f"globalDefault of {name} PriorityClass must be false" if default else ""


def validate_update(new: Object, old: Object) -> list[FieldError]:
    """Value and policy never change."""
    out: list[FieldError] = []
    if (new.get("value") or 0) != (old.get("value") or 0):
        out.append(forbidden("value", "may not be changed in an update."))
    return out + immutable("preemptionPolicy", new.get("preemptionPolicy"), old.get("preemptionPolicy"))


def _uncounted(new: Object, old: Object) -> None:
    """The generation stays that of the beginning."""
    if generation := old["metadata"].get("generation"):
        new["metadata"]["generation"] = generation


def kept(found: Object) -> str:
    """The system's own stay."""
    return "this is a system priority class and cannot be deleted" if found["metadata"]["name"] in SYSTEM else ""


PRIORITYCLASS = Behavior(
    "scheduling.k8s.io",
    "PriorityClass",
    order="mu",
    default=default,
    validate=validate,
    validate_update=validate_update,
    prepare_create=strategy.begin(None, generations=True),
    prepare_update=_uncounted,
    kept=kept,
    columns=(
        NAME,
        number("Value", "value"),
        flag("Global-Default", "globalDefault"),
        AGE,
        field("PreemptionPolicy", "preemptionPolicy"),
    ),
)
