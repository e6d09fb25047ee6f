"""FlowSchema and PriorityLevelConfiguration.

Source: pkg/apis/flowcontrol/v1/defaults.go and validation, printFlowSchema, printPriorityLevelConfiguration.
"""

from __future__ import annotations

from steersman.api import flows
from steersman.api.errors import FieldError
from steersman.api.kind import Behavior, Column
from steersman.api.kinds import flowrules, strategy
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, NONE, dig, field
from steersman.api.validation import invalid, same

GROUP = "flowcontrol.apiserver.k8s.io"
_FIXED = (flows.EXEMPT, flows.CATCH_ALL)
_QUEUES = {"queues": 64, "handSize": 8, "queueLengthLimit": 50}


def _default_schema(found: Object) -> None:
    spec = found.setdefault("spec", {})
    spec["matchingPrecedence"] = spec.get("matchingPrecedence") or 1000
    for rule in spec.get("rules") or ():
        for each in rule.get("resourceRules") or ():
            each.setdefault("namespaces", None)
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


FLOWSCHEMA = Behavior(
    GROUP,
    "FlowSchema",
    default=_default_schema,
    validate=_validate_schema,
    prepare_create=strategy.begin({}, generations=True),
    columns=(
        NAME,
        field("PriorityLevel", "spec", "priorityLevelConfiguration", "name"),
        field("MatchingPrecedence", "spec", "matchingPrecedence", empty=0),
        field("DistinguisherMethod", "spec", "distinguisherMethod", "type", empty=NONE),
        AGE,
        Column("MissingPL", _dangling),
    ),
)


def _default_level(level: Object) -> None:
    spec = level.setdefault("spec", {})
    limited, exempt = spec.get("limited"), spec.get("exempt")
    if limited is not None and "assuredConcurrencyShares" not in limited:
        limited.setdefault("nominalConcurrencyShares", 30)
        limited.setdefault("lendablePercent", 0)
    if limited is not None:
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
    out = flowrules.level(spec, name)
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
    default=_default_level,
    validate=_validate_level,
    prepare_create=strategy.begin({}, generations=True),
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
