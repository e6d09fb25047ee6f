"""ResourceQuota.

Source: ValidateResourceQuota, ValidateResourceQuotaUpdate, printResourceQuota.
"""

from __future__ import annotations

from steersman.api.errors import FieldError
from steersman.api.kind import Behavior, Column, Update
from steersman.api.kinds import strategy
from steersman.api.kinds.podspec import defaults, resources
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, dig
from steersman.api.validation import immutable, invalid, not_supported

SCOPES = (
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
)
_OPERATORS = ("DoesNotExist", "Exists", "In", "NotIn")


def default(quota: Object) -> None:
    """Amounts in canonical form."""
    quota.setdefault("spec", {})
    status = quota.setdefault("status", {})
    defaults.resource_list(quota["spec"].get("hard"))
    for key in ("hard", "used"):
        defaults.resource_list(status.get(key))


def validate(quota: Object) -> list[FieldError]:
    """Names, amounts, scopes."""
    spec = quota["spec"]
    out: list[FieldError] = []
    for name, value in (spec.get("hard") or {}).items():
        here = f"spec.hard[{name}]"
        out += resources.resource_name(here, name) if not name.startswith("count/") else []
        out += resources.amount(here, name, value)
    scopes = spec.get("scopes") or []
    if any(scope not in SCOPES for scope in scopes):
        out.append(invalid("spec.scopes", scopes, "unsupported scope"))
    pairs = (("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating"))
    if any(one in scopes and other in scopes for one, other in pairs):
        out.append(invalid("spec.scopes", scopes, "conflicting scopes"))
    for expression in dig(spec, "scopeSelector", "matchExpressions") or ():
        here = "spec.scopeSelector.matchExpressions"
        if expression.get("scopeName") not in SCOPES:
            out.append(invalid(f"{here}.scopeName", expression.get("scopeName") or "", "unsupported scope"))
        if expression.get("operator") not in _OPERATORS:
            out.append(not_supported(f"{here}.operator", expression.get("operator") or "", _OPERATORS))
    return out


def validate_update(new: Object, old: Object) -> list[FieldError]:
    """Scopes never change."""
    return immutable("spec.scopes", new["spec"].get("scopes"), old["spec"].get("scopes"))


def _usage(limits: bool) -> Column:
    def cell(quota: Object, now: float) -> str:
        hard, used = dig(quota, "status", "hard") or {}, dig(quota, "status", "used") or {}
        chosen = [name for name in sorted(hard) if name.startswith("limits.") is limits]
        return ", ".join(f"{name}: {used.get(name, '0')}/{hard[name]}" for name in chosen)

    return Column("Limit" if limits else "Request", cell)


RESOURCEQUOTA = Behavior(
    "",
    "ResourceQuota",
    default=default,
    validate=validate,
    validate_update=validate_update,
    prepare_create=strategy.begin({}),
    updates={"status": Update(strategy.keep("spec"))},
    columns=(NAME, _usage(limits=False), _usage(limits=True), AGE),
)
