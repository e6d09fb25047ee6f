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
from steersman.api.validation import immutable, invalid, required, struct

SCOPES = (
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
)
_OF_PODS = frozenset(
    ("pods", "cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"),
)
_COUNTED_BY = {
    "BestEffort": frozenset(("pods",)),
    "VolumeAttributesClass": frozenset(("persistentvolumeclaims", "requests.storage")),
}
_STANDARD = _OF_PODS | {
    *("ephemeral-storage", "requests.storage", "requests.ephemeral-storage", "limits.ephemeral-storage"),
    *("resourcequotas", "services", "replicationcontrollers", "secrets", "persistentvolumeclaims", "configmaps"),
    *("services.nodeports", "services.loadbalancers"),
}
_ONLY_EXISTS = ("BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity")
_MUST_EXIST = "must be 'Exists' when scope is any of " + (
    "ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, "
    "ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"
)
_HUGE = ("hugepages-", "requests.hugepages-")
_MISFIT = "unsupported scope applied to resource"


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
        out += _counted(f"spec.hard[{name}]", name, value)
    return out + _scopes(spec) + _selector(spec)


def _counted(path: str, name: str, value: str) -> list[FieldError]:
    out = resources.resource_name(path, name)
    if "/" not in name and (name not in resources.STANDARD or name == "storage") and not name.startswith(_HUGE):
        out.append(invalid(path, name, "must be a standard resource for quota"))
    return out + resources.amount(path, name, value)


def validate_status(new: Object, old: Object) -> list[FieldError]:
    """The same of what is limited, and of what is used."""
    status = new.get("status") or {}
    return [
        error
        for key in ("hard", "used")
        for name, value in (status.get(key) or {}).items()
        for error in _counted(f"status.{key}[{name}]", name, value)
    ]


def _scopes(spec: Object) -> list[FieldError]:
    scopes = spec.get("scopes") or []
    out: list[FieldError] = []
    for scope in scopes:
        if scope not in SCOPES:
            out.append(invalid("spec.scopes", scopes, "unsupported scope"))
        out += [invalid("spec.scopes", scopes, _MISFIT) for _ in _misfits(spec, scope)]
    return out + _conflicts(spec, scopes)


def _selector(spec: Object) -> list[FieldError]:
    if "scopeSelector" not in spec:
        return []
    out: list[FieldError] = []
    path = "spec.scopeSelector.matchExpressions"
    expressions = spec["scopeSelector"].get("matchExpressions") or []
    for each in expressions:
        scope, operator, values = each.get("scopeName") or "", each.get("operator") or "", each.get("values") or []
        if scope not in SCOPES:
            out.append(invalid(f"{path}.scopeName", scope, "unsupported scope"))
        for _ in _misfits(spec, scope):
            shown = [struct(expression, ScopeName="", Operator="", Values=None) for expression in expressions]
            out.append(invalid(path, {"MatchExpressions": shown}, _MISFIT))
        if scope in _ONLY_EXISTS and operator != "Exists":
            out.append(invalid(f"{path}.operator", operator, _MUST_EXIST))
        if operator in ("In", "NotIn"):
            text = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
            out += [] if values else [required(f"{path}.values", text)]
        elif operator in ("Exists", "DoesNotExist"):
            text = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
            out += [invalid(f"{path}.values", values, text)] if values else []
        else:
            out.append(invalid(f"{path}.operator", operator, "not a valid selector operator"))
    return out + _conflicts(spec, [each.get("scopeName") for each in expressions])


def _conflicts(spec: Object, scopes: list[str]) -> list[FieldError]:
    pairs = (("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating"))
    return [
        invalid(
            "spec.scopes" if scopes is spec.get("scopes") else "spec.scopeSelector.matchExpressions",
            spec.get("scopes"),
            "conflicting scopes",
        )
        for one, other in pairs
        if one in scopes and other in scopes
    ]


def _misfits(spec: Object, scope: str) -> list[str]:
    """The counted resources that have nothing to do with a scope."""
    if scope not in SCOPES:
        return []
    fitting = _COUNTED_BY.get(scope, _OF_PODS)
    return [name for name in spec.get("hard") or () if name in _STANDARD and name not in fitting]


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
    updates={"status": Update(strategy.keep("spec"), validate_status)},
    columns=(NAME, _usage(limits=False), _usage(limits=True), AGE),
)
