"""FlowSchema and PriorityLevelConfiguration.

Source: pkg/apis/flowcontrol/v1/defaults.go and validation, printFlowSchema, printPriorityLevelConfiguration.
"""

from __future__ import annotations

from steersman.api.errors import FieldError
from steersman.api.kind import Behavior, Column
from steersman.api.kinds import strategy
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, NONE, dig, field
from steersman.api.validation import forbidden, invalid, not_supported, required

GROUP = "flowcontrol.apiserver.k8s.io"
_QUEUES = {"queues": 64, "handSize": 8, "queueLengthLimit": 50}


def _default_schema(found: Object) -> None:
    spec = found.setdefault("spec", {})
    spec["matchingPrecedence"] = spec.get("matchingPrecedence") or 1000
    found.setdefault("status", {})


def _validate_schema(found: Object) -> list[FieldError]:
    spec = found["spec"]
    precedence = spec.get("matchingPrecedence") or 0
    out: list[FieldError] = []
    if precedence <= 0:
        out.append(invalid("spec.matchingPrecedence", precedence, "must be a positive value"))
    elif precedence > 10_000:
        text = "must not be greater than 10000"
        out.append(invalid("spec.matchingPrecedence", precedence, text))
    elif precedence == 1 and found["metadata"].get("name") != "exempt":
        text = "only the schema named 'exempt' may have matchingPrecedence 1"
        out.append(invalid("spec.matchingPrecedence", precedence, text))
    method = dig(spec, "distinguisherMethod", "type")
    if method is not None and method not in ("ByNamespace", "ByUser"):
        out.append(not_supported("spec.distinguisherMethod", spec["distinguisherMethod"], ("ByNamespace", "ByUser")))
    if not dig(spec, "priorityLevelConfiguration", "name"):
        out.append(required("spec.priorityLevelConfiguration.name", "must reference a priority level"))
    return out


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
    if limited is not None:
        limited.setdefault("nominalConcurrencyShares", 30)
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
    spec = level["spec"]
    kind, limited, exempt = spec.get("type") or "", spec.get("limited"), spec.get("exempt")
    out: list[FieldError] = []
    if kind == "Exempt" and limited is not None:
        out.append(forbidden("spec.limited", "must be nil if the type is not Limited"))
    elif kind == "Limited" and exempt is not None:
        out.append(forbidden("spec.exempt", "must be nil if the type is Limited"))
    elif kind == "Limited" and limited is None:
        out.append(required("spec.limited", "must not be empty when type is Limited"))
    elif kind not in ("Exempt", "Limited"):
        out.append(not_supported("spec.type", kind, ("Exempt", "Limited")))
    response = dig(limited, "limitResponse", "type")
    if limited is not None and response not in ("Queue", "Reject"):
        out.append(not_supported("spec.limited.limitResponse.type", response or "", ("Queue", "Reject")))
    return out


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
