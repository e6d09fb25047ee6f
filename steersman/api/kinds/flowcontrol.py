"""FlowSchema and PriorityLevelConfiguration.

Source: pkg/apis/flowcontrol/v1/defaults.go and validation, printFlowSchema, printPriorityLevelConfiguration.
"""

from __future__ import annotations

from steersman.api import flows
from steersman.api.errors import FieldError
from steersman.api.kind import Behavior, Column, Update, only_status
from steersman.api.kinds import flowrules, strategy
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, NONE, dig, field
from steersman.api.validation import forbidden, invalid, same

GROUP = "flowcontrol.apiserver.k8s.io"
_FIXED = (flows.EXEMPT, flows.CATCH_ALL)
_SHARES = 30
_QUEUES = {"queues": 64, "handSize": 8, "queueLengthLimit": 50}


def _default_schema(found: Object) -> None:
    spec = found.setdefault("spec", {})
    spec["matchingPrecedence"] = spec.get("matchingPrecedence") or 1000
    for rule in spec.get("rules") or ():
        for each in rule.get("resourceRules") or ():
            each["namespaces"] = each.get("namespaces") or None
    found.setdefault("status", {})


def _validate_schema(found: Object) -> list[FieldError]:
    spec, name = found["spec"], found["metadata"].get("name")
    out = flowrules.schema(spec, name)
    if name in _FIXED and not same(spec, _fixed_schema(name)):
        out.append(invalid("spec", spec, f"spec of '{name}' must equal the fixed value"))
    return out + flowrules.conditions(found)


def _fixed_schema(name: str) -> Object:
    wanted: Object = flows.schemas()[name]["spec"]
    return wanted


def _dangling(found: Object, now: float) -> str:
    conditions = dig(found, "status", "conditions") or ()
    return next((each.get("status", "") for each in conditions if each.get("type") == "Dangling"), "?")


def _validate_status(new: Object, old: Object) -> list[FieldError]:
    return flowrules.conditions(new)


FLOWSCHEMA = Behavior(
    GROUP,
    "FlowSchema",
    order="nv",
    default=_default_schema,
    validate=_validate_schema,
    prepare_create=strategy.begin({}, generations=True),
    updates={"status": Update(only_status, _validate_status, "u")},
    columns=(
        NAME,
        field("PriorityLevel", "spec", "priorityLevelConfiguration", "name"),
        field("MatchingPrecedence", "spec", "matchingPrecedence", empty=0),
        field("DistinguisherMethod", "spec", "distinguisherMethod", "type", empty=NONE),
        AGE,
        Column("MissingPL", _dangling),
    ),
)


PRESERVE = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares"
"""Says of a v1beta3 object that it means its zero shares, which that version could not tell from none."""
_ASSURED = ("v1beta1", "v1beta2")
"""Versions in which shares had another name."""


def convert(level: Object, wanted: str) -> Object:
    """A level in another version. Source: pkg/apis/flowcontrol/{v1beta2,v1beta3}/conversion.go and defaults.go."""
    before, after = (api_version.rpartition("/")[2] for api_version in (level["apiVersion"], wanted))
    limited = dig(level, "spec", "limited")
    if before == "v1beta3":
        _meant(level)
    if limited is not None:
        source, target = (_shares_name(version) for version in (before, after))
        if source != target and source in limited:
            limited[target] = limited.pop(source)
        if before in _ASSURED and not limited.get(target):
            limited[target] = _SHARES
        if after == "v1beta3" and limited.get(target) == 0:
            level["metadata"].setdefault("annotations", {})[PRESERVE] = ""
    level["apiVersion"] = wanted
    return level


def _shares_name(version: str) -> str:
    return "assuredConcurrencyShares" if version in _ASSURED else "nominalConcurrencyShares"


def _meant(level: Object) -> None:
    """No shares are the default ones in v1beta3, unless an annotation says otherwise, which is taken away."""
    annotations = level["metadata"].get("annotations") or {}
    limited = dig(level, "spec", "limited")
    if PRESERVE in annotations:
        del annotations[PRESERVE]
        if not annotations:
            del level["metadata"]["annotations"]
    elif limited is not None and not limited.get("nominalConcurrencyShares"):
        limited["nominalConcurrencyShares"] = _SHARES


def _default_level(level: Object) -> None:
    spec = level.setdefault("spec", {})
    limited, exempt = spec.get("limited"), spec.get("exempt")
    version = level.get("apiVersion", "").rpartition("/")[2]
    if limited is not None:
        shares = _shares_name(version)
        if version in _ASSURED or (
            version == "v1beta3" and PRESERVE not in (level["metadata"].get("annotations") or {})
        ):
            limited[shares] = limited.get(shares) or _SHARES
        limited.setdefault(shares, _SHARES)
        if version not in _ASSURED:
            limited.setdefault("lendablePercent", 0)
        queuing = (limited.get("limitResponse") or {}).get("queuing")
        if queuing is not None:
            for key, value in _QUEUES.items():
                queuing[key] = queuing.get(key) or value
    if exempt is not None:
        exempt.setdefault("nominalConcurrencyShares", 0)
        exempt.setdefault("lendablePercent", 0)
    level.setdefault("status", {})


def _validate_level(level: Object) -> list[FieldError]:
    spec, name = level["spec"], level["metadata"].get("name")
    out: list[FieldError] = []
    if not level.get("apiVersion", "").endswith("v1beta3") and PRESERVE in (level["metadata"].get("annotations") or {}):
        out.append(forbidden("metadata.annotations", f"annotation '{PRESERVE}' is forbidden"))
    out += flowrules.level(spec, name)
    if name in _FIXED:
        wanted = flows.levels()[name]["spec"]
        if name == flows.EXEMPT:
            wanted = {**wanted, "exempt": spec.get("exempt")}
        elif "assuredConcurrencyShares" in (spec.get("limited") or {}):
            wanted = {**wanted, "limited": _before_v1beta3(wanted["limited"])}
        if not same({**spec, "exempt": spec.get("exempt")}, {**wanted, "exempt": wanted.get("exempt")}):
            but = " except the 'spec.exempt' field" if name == flows.EXEMPT else ""
            out.append(invalid("spec", spec, f"spec of '{name}'{but} must equal the fixed value"))
    return out + flowrules.conditions(level)


def _before_v1beta3(limited: Object) -> Object:
    """Shares had another name then, and nothing was lent."""
    shares = {"assuredConcurrencyShares": limited["nominalConcurrencyShares"]}
    rest = {key: value for key, value in limited.items() if key not in ("nominalConcurrencyShares", "lendablePercent")}
    return {**shares, **rest}


def _queue(name: str, key: str) -> Column:
    return field(name, "spec", "limited", "limitResponse", "queuing", key, empty=NONE)


def _shares(level: Object, now: float) -> object:
    limited = dig(level, "spec", "limited")
    return NONE if limited is None else limited.get("nominalConcurrencyShares", 0)


PRIORITYLEVELCONFIGURATION = Behavior(
    GROUP,
    "PriorityLevelConfiguration",
    order="nv",
    default=_default_level,
    convert=convert,
    validate=_validate_level,
    prepare_create=strategy.begin({}, generations=True),
    updates={"status": Update(only_status, _validate_status, "u")},
    columns=(
        NAME,
        field("Type", "spec", "type"),
        Column("NominalConcurrencyShares", _shares),
        _queue("Queues", "queues"),
        _queue("HandSize", "handSize"),
        _queue("QueueLengthLimit", "queueLengthLimit"),
        AGE,
    ),
)
