"""Event, in the core group and in events.k8s.io, which is a view of the same objects.

Source: legacyValidateEvent, the events/v1 conversion, pkg/registry/core/event/strategy.go, printEvent.
"""

from __future__ import annotations

from typing import Any

from steersman.api import names
from steersman.api.errors import FieldError
from steersman.api.fields import Getter, text_at
from steersman.api.godump import dump
from steersman.api.kind import Behavior, Cell, Column
from steersman.api.resource import Object
from steersman.api.table import NAME, dig, field, since, wide
from steersman.api.validation import immutable, invalid, required, struct

NEW = "events.k8s.io/v1"
_LIMITS = (("action", 128), ("reason", 128), ("message", 1024))
_RENAMED = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}
_BACK = {new: old for old, new in _RENAMED.items()}
_FIXED = (
    *((key, key) for key in ("involvedObject", "reason", "message", "source", "firstTimestamp", "lastTimestamp")),
    *((key, key) for key in ("count", "reason", "type", "eventTime", "action", "related")),
    ("reportingComponent", "reportingController"),
    ("reportingInstance", "reportingInstance"),
)
_NO_MATCH = "does not match event.namespace"


def default(event: Object) -> None:
    """Fields that are never absent."""
    if event.get("apiVersion") == NEW:
        return
    event.setdefault("involvedObject", {})
    if event.get("series") is not None:
        event["series"].setdefault("lastObservedTime", None)
    event.setdefault("source", {})
    event.setdefault("reportingComponent", "")
    event.setdefault("reportingInstance", "")
    for key in ("eventTime", "firstTimestamp", "lastTimestamp"):
        event.setdefault(key, None)


def convert(event: Object, version: str) -> Object:
    """Between v1 and events.k8s.io/v1: the same facts under other names."""
    renamed = _RENAMED if version != "v1" else _BACK
    out = {renamed.get(key, key): value for key, value in event.items()}
    out["apiVersion"] = version
    if version != "v1":
        for key in ("reportingController", "reportingInstance"):  # which this version leaves out when there is none
            if not out.get(key):
                out.pop(key, None)
        for key in ("deprecatedFirstTimestamp", "deprecatedLastTimestamp"):
            out.setdefault(key, None)
    return out


def validate(event: Object) -> list[FieldError]:
    """The event is in its object's namespace; one with eventTime says who reports what."""
    return _validate(event, "reportingComponent")


def validate_new(event: Object) -> list[FieldError]:
    """The same, when it is first written through events.k8s.io, which wants a time and nothing of the elder fields."""
    event = _core(event)
    out = _validate(event, "reportingController")
    if "resourceVersion" in event["metadata"]:  # an update
        return out
    out += _series(event)
    if not event.get("eventTime"):
        out.append(required("eventTime"))
    if event.get("type") not in ("Normal", "Warning"):
        out.append(invalid("type", "", f"has invalid value: {event.get('type') or ''}"))
    source = event.get("source") or {}
    for key, found in (
        *((key, event.get(key)) for key in ("firstTimestamp", "lastTimestamp", "count")),
        ("source", source.get("component") or source.get("host")),
    ):
        out += [invalid(key, "", "needs to be unset")] if found else []
    return out


def validate_new_update(new: Object, old: Object) -> list[FieldError]:
    """Through events.k8s.io nothing changes but the series."""
    new, old = _core(new), _core(old)
    out = _series(new) if new.get("series") != old.get("series") else []
    for key, shown in _FIXED:
        out += immutable(shown, _go(key, new.get(key)), _go(key, old.get(key)))
    return out


def _go(key: str, value: Any) -> Any:
    """As Go has it: what is not there is empty text, zero or null, structures have all their fields."""
    if key == "involvedObject":
        return struct(
            value or {}, Kind="", Namespace="", Name="", UID="", APIVersion="", ResourceVersion="", FieldPath=""
        )
    if key == "related" and value:
        return dump(value, "v1:ObjectReference")
    if key == "source":
        return struct(value or {}, Component="", Host="")
    return value or {"count": 0, "related": None, "firstTimestamp": None, "lastTimestamp": None, "eventTime": None}.get(
        key, ""
    )


def _series(event: Object) -> list[FieldError]:
    series = event.get("series")
    if series is None:
        return []
    out = [invalid("series.count", "", "should be at least 2")] if (series.get("count") or 0) < 2 else []
    return out if series.get("lastObservedTime") else [*out, required("series.lastObservedTime")]


def _validate(event: Object, controller: str) -> list[FieldError]:
    namespace, about = event["metadata"].get("namespace") or "", dig(event, "involvedObject", "namespace") or ""
    out: list[FieldError] = []
    here = "involvedObject.namespace"
    if event.get("eventTime"):
        if not about and namespace not in ("default", "kube-system"):
            out.append(invalid(here, about, _NO_MATCH))
        out += _reported(event, controller)
    elif (about and namespace != about) or (not about and namespace not in ("", "default")):
        out.append(invalid(here, about, _NO_MATCH))
    return out + [invalid("namespace", namespace, text) for text in names.dns_subdomain(namespace)]


def _reported(event: Object, controller: str) -> list[FieldError]:
    who, instance = event.get("reportingComponent") or "", event.get("reportingInstance") or ""
    out = [] if who else [required(controller)]
    out += [invalid(controller, who, text) for text in names.qualified(who)]
    if not instance:
        out.append(required("reportingInstance"))
    elif len(instance) > 128:
        out.append(invalid("reportingInstance", "", "can have at most 128 characters"))
    for key, limit in _LIMITS:
        value = event.get(key) or ""
        if not value and key != "message":
            out.append(required(key))
        if len(value) > limit:
            out.append(invalid(key, "", f"can have at most {limit} characters"))
    return out


def _core(event: Object) -> Object:
    return convert(event, "v1") if event.get("apiVersion") == NEW else event


def _first(event: Object, now: float) -> str:
    return since(event.get("firstTimestamp") or event.get("eventTime"), now)


def _last(event: Object, now: float) -> str:
    if series := event.get("series"):
        return since(series.get("lastObservedTime"), now)
    return since(event["lastTimestamp"], now) if event.get("lastTimestamp") else _first(event, now)


def _object(event: Object, now: float) -> str:
    about = event.get("involvedObject") or {}
    kind = about.get("kind", "").lower()
    return f"{kind}/{about['name']}" if about.get("name") else kind


def _count(event: Object, now: float) -> int:
    series = event.get("series")
    return series.get("count", 0) if series else event.get("count") or 1


def _source(event: Object, now: float) -> str:
    component = dig(event, "source", "component") or event.get("reportingComponent") or ""
    host = dig(event, "source", "host") or event.get("reportingInstance") or ""
    return f"{component}, {host}" if host else component


def _subobject(event: Object, now: float) -> str:
    return dig(event, "involvedObject", "fieldPath") or ""


def _message(event: Object, now: float) -> str:
    return (event.get("message") or "").strip()


def _seen(cell: Cell) -> Cell:
    def shown(event: Object, now: float) -> Any:
        return cell(_core(event), now)

    return shown


COLUMNS = (
    Column("Last Seen", _seen(_last)),
    field("Type", "type"),
    field("Reason", "reason"),
    Column("Object", _seen(_object)),
    wide("Subobject", _seen(_subobject)),
    wide("Source", _seen(_source)),
    Column("Message", _seen(_message)),
    wide("First Seen", _seen(_first)),
    wide("Count", _seen(_count)),
    Column("Name", NAME.cell, format="name", priority=1),
)


def _reason_source(event: Object) -> str:
    return dig(event, "source", "component") or event.get("reportingComponent") or ""


_ABOUT = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")


def _fields(about: str, **own: Getter) -> dict[str, Getter]:
    def of(key: str) -> Getter:
        return lambda event: dig(_core(event), "involvedObject", key) or ""

    return {f"{about}.{key}": of(key) for key in _ABOUT} | own


EVENT = Behavior(
    "",
    "Event",
    order="v",
    default=default,
    validate=validate,
    columns=COLUMNS,
    name_rule=names.path_segment,
    fields=_fields(
        "involvedObject",
        reason=text_at("reason"),
        reportingComponent=text_at("reportingComponent"),
        source=_reason_source,
        type=text_at("type"),
    ),
)
NEW_EVENT = Behavior(
    "events.k8s.io",
    "Event",
    order="vmu",
    default=default,
    validate=validate_new,
    validate_update=validate_new_update,
    columns=COLUMNS,
    fields=_fields(
        "regarding",
        reason=text_at("reason"),
        type=text_at("type"),
        reportingController=lambda event: _core(event).get("reportingComponent") or "",
    ),
    convert=convert,
)
