"""Claims on devices, their templates, and classes of devices.

Source: pkg/apis/resource/{v1,validation}, the strategies in pkg/registry/resource.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from steersman.api import conditions, meta, names
from steersman.api.errors import FieldError
from steersman.api.godump import dump
from steersman.api.kind import Behavior, Column, Update
from steersman.api.kinds import strategy
from steersman.api.kinds.devices.rules import (
    Complaints,
    binding,
    configuration,
    each,
    fully_qualified,
    label,
    pool_name,
    raw,
    selectors,
    subdomain,
    toleration,
)
from steersman.api.kinds.podspec.resources import is_extended
from steersman.api.kinds.podspec.scheduling import node_selector
from steersman.api.kinds.podspec.volumes import driver_name
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, dig
from steersman.api.validation import forbidden, immutable, invalid, not_supported, quote, required, too_long, too_many

GROUP = "resource.k8s.io"
_ALL, _EXACT = "All", "ExactCount"
_MOST_REQUESTS, _MOST_CONSTRAINTS, _MOST_CONFIG, _MOST_WAYS = 32, 32, 32, 8
_MOST_RESULTS, _MOST_USERS, _MOST_TOLERATIONS, _MOST_CONDITIONS, _MOST_IPS = 32, 256, 16, 8, 16
_ONE_REQUEST = "exactly one of `exactly` or `firstAvailable` is required"
_ONE_CONSTRAINT = 'exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set'
_REFERENCE = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SOURCES = ("FromClaim", "FromClass")

Names = Mapping[str, set[str]]
"""The requests of a claim, and the ways of each."""


def _asked(spec: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Everything that asks for devices of one class."""
    for request in dig(spec, "devices", "requests") or ():
        if request.get("exactly") is not None:
            yield request["exactly"]
        yield from request.get("firstAvailable") or ()


def _default_spec(spec: dict[str, Any]) -> None:
    _listed(spec.setdefault("devices", {}))
    for asked in _asked(spec):
        asked["allocationMode"] = asked.get("allocationMode") or _EXACT
        if asked["allocationMode"] == _EXACT and not asked.get("count"):
            asked["count"] = 1
        _default_tolerations(asked)


def _default_tolerations(holder: dict[str, Any]) -> None:
    for one in holder.get("tolerations") or ():
        one["operator"] = one.get("operator") or "Equal"


def _listed(devices: dict[str, Any]) -> None:
    """The requests are always shown, if as nothing."""
    devices["requests"] = devices.get("requests") or None


def default_claim(claim: Object) -> None:
    """One device, unless more are asked for."""
    _default_spec(claim.setdefault("spec", {}))
    for result in dig(claim, "status", "allocation", "devices", "results") or ():
        _default_tolerations(result)
    for device in claim.setdefault("status", {}).get("devices") or ():
        if "conditions" in device:
            device["conditions"] = device["conditions"] or None


def default_template(template: Object) -> None:
    """As the claims that it makes."""
    spec = template.setdefault("spec", {})
    spec.setdefault("metadata", {})
    _default_spec(spec.setdefault("spec", {}))


def _names(spec: Mapping[str, Any]) -> Names:
    return {
        request.get("name") or "": {way.get("name") or "" for way in request.get("firstAvailable") or ()}
        for request in dig(spec, "devices", "requests") or ()
    }


def _validate_spec(path: str, spec: Mapping[str, Any]) -> Complaints:
    devices, path, known = spec.get("devices") or {}, f"{path}.devices", _names(spec)
    constraints, config = devices.get("constraints"), devices.get("config")
    return [
        *each(f"{path}.requests", devices.get("requests"), _MOST_REQUESTS, _request, _name),
        *each(f"{path}.constraints", constraints, _MOST_CONSTRAINTS, lambda at, one: _constraint(at, one, known)),
        *each(f"{path}.config", config, _MOST_CONFIG, lambda at, one: _config(at, one, known)),
    ]


def _name(found: Mapping[str, Any]) -> str:
    return found.get("name") or ""


def _request(path: str, request: Mapping[str, Any]) -> Complaints:
    out = label(f"{path}.name", _name(request))
    exactly, several = request.get("exactly"), request.get("firstAvailable") or []
    if exactly is None and not several:
        out.append(required(path, _ONE_REQUEST))
    elif exactly is not None and several:
        out.append(invalid(path, None, f"{_ONE_REQUEST}, but multiple fields are set"))
    elif exactly is not None:
        out += _one(f"{path}.exactly", exactly)
    else:
        out += each(f"{path}.firstAvailable", several, _MOST_WAYS, _way, _name)
    return out


def _way(path: str, found: Mapping[str, Any]) -> Complaints:
    return label(f"{path}.name", _name(found)) + _one(path, found)


def _one(path: str, asked: Mapping[str, Any]) -> Complaints:
    out = subdomain(f"{path}.deviceClassName", asked.get("deviceClassName") or "")
    out += selectors(f"{path}.selectors", asked.get("selectors"))
    mode, count = asked.get("allocationMode") or "", asked.get("count") or 0
    if mode not in (_ALL, _EXACT):
        out.append(not_supported(f"{path}.allocationMode", mode, (_ALL, _EXACT)))
    elif mode == _ALL and count:
        out.append(invalid(f"{path}.count", count, f"must not be specified when allocationMode is '{_ALL}'"))
    elif mode == _EXACT and count <= 0:
        out.append(invalid(f"{path}.count", count, "must be greater than zero"))
    return out + each(f"{path}.tolerations", asked.get("tolerations"), _MOST_TOLERATIONS, toleration)


def _reference(path: str, name: str, known: Names) -> Complaints:
    parts = name.split("/")
    if len(parts) > 2:
        return [invalid(path, name, _REFERENCE)]
    out = [error for part in parts for error in label(path, part)]
    if parts[0] not in known or (len(parts) == 2 and parts[1] not in known[parts[0]]):
        out.append(invalid(path, name, _REFERENCE))
    return out


def _references(path: str, found: Mapping[str, Any], known: Names) -> Complaints:
    return each(
        f"{path}.requests", found.get("requests"), _MOST_REQUESTS, lambda at, one: _reference(at, one, known), str
    )


def _constraint(path: str, found: Mapping[str, Any], known: Names) -> Complaints:
    out = _references(path, found, known)
    if found.get("matchAttribute") is not None:
        return out + fully_qualified(f"{path}.matchAttribute", found["matchAttribute"])
    if found.get("distinctAttribute") is not None:
        return out + fully_qualified(f"{path}.distinctAttribute", found["distinctAttribute"])
    return [*out, required(path, _ONE_CONSTRAINT)]


def _config(path: str, found: Mapping[str, Any], known: Names) -> Complaints:
    return _references(path, found, known) + configuration(path, found)


def validate_claim(claim: Object) -> Complaints:
    """Each request is one thing, by a name of its own."""
    return _validate_spec("spec", claim.get("spec") or {})


def validate_template(template: Object) -> Complaints:
    """As the claims that it makes."""
    out = meta.validate_template(dig(template, "spec", "metadata") or {}, "spec.metadata")
    return out + _validate_spec("spec.spec", dig(template, "spec", "spec") or {})


def _claim_update(new: Object, old: Object) -> Complaints:
    """What is asked for stays, and nothing else is said of it."""
    return _kept("ResourceClaimSpec", new, old)


def _template_update(new: Object, old: Object) -> Complaints:
    """As of claims, after all that a new one would be told."""
    return _kept("ResourceClaimTemplateSpec", new, old)


def _kept(message: str, new: Object, old: Object) -> Complaints:
    fresh, before = (dump(each.get("spec"), f"{GROUP}/v1:{message}") for each in (new, old))
    return immutable("spec", fresh, before)


# The status ------------------------------------------------------------------------------------------------------


def _validate_status(new: Object, old: Object) -> Complaints:
    """Devices that report are devices that were given; what was given stays."""
    status, before = new.get("status") or {}, old.get("status") or {}
    given = {_device(one) for one in dig(status, "allocation", "devices", "results") or ()}
    users = status.get("reservedFor") or []
    out = each("status.reservedFor", users, _MOST_USERS, _user, lambda one: one.get("uid") or "")
    reports = status.get("devices")
    out += each("status.devices", reports, -1, lambda at, one: _report(at, one, given), _shown, encoded=True)
    if users and not status.get("allocation"):
        out.append(forbidden("status.reservedFor", "may not be specified when `allocated` is not set"))
    elif "deletionTimestamp" in new["metadata"] and any(one not in (before.get("reservedFor") or ()) for one in users):
        text = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"
        out.append(forbidden("status.reservedFor", text))
    if before.get("allocation") and status.get("allocation"):
        message = f"{GROUP}/v1:AllocationResult"
        fresh, had = (dump(each["allocation"], message) for each in (status, before))
        out += immutable("status.allocation", fresh, had)
    elif status.get("allocation"):
        out += _allocation("status.allocation", status["allocation"], _names(new.get("spec") or {}))
    return out


def _user(path: str, found: Mapping[str, Any]) -> Complaints:
    return [required(f"{path}.{key}") for key in ("resource", "name", "uid") if not found.get(key)]


def _report(path: str, found: Mapping[str, Any], given: set[tuple[str, str, str, str]]) -> Complaints:
    out = driver_name(f"{path}.driver", found.get("driver") or "") + pool_name(f"{path}.pool", found.get("pool") or "")
    out += label(f"{path}.device", found.get("device") or "") + _share(f"{path}.shareID", found.get("shareID"))
    if _device(found) not in given:
        shown = _shown(found)
        text = f"Invalid value: {shown}: must be an allocated device in the claim"
        out.append(FieldError("FieldValueInvalid", path, text, shown))
    reported = found.get("conditions") or ()
    if len(reported) > _MOST_CONDITIONS:
        out.append(too_many(f"{path}.conditions", len(reported), _MOST_CONDITIONS))
    out += conditions.check(f"{path}.conditions", reported)
    if found.get("data") is not None:
        out += raw(f"{path}.data", found["data"])
    return out + _network(f"{path}.networkData", found.get("networkData") or {})


def _network(path: str, found: Mapping[str, Any]) -> Complaints:
    longest = {"interfaceName": 256, "hardwareAddress": 128}
    out = [too_long(f"{path}.{key}", most) for key, most in longest.items() if len(found.get(key) or "") > most]
    return out + each(f"{path}.ips", found.get("ips"), _MOST_IPS, names.interface_address, str)


def _share(path: str, id: str | None) -> Complaints:
    if id is None or _UUID.fullmatch(id):
        return []
    if why := _no_uuid(id):
        return [invalid(path, id, f"error validating uid: {why}")]
    text = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase "
    return [invalid(path, id, f"{text}hexadecimal characters")]


def _no_uuid(text: str) -> str:
    """Why a text is no UUID, in the words of Google's library; nothing where it is one in another form."""
    plain = text
    if len(text) == 45:
        if not text.lower().startswith("urn:uuid:"):
            return f"invalid urn prefix: {quote(text[:9])}"
        plain = text[9:]
    elif len(text) == 38:
        if (text[0], text[-1]) != ("{", "}"):
            return "invalid bracketed UUID format"
        plain = text[1:-1]
    elif len(text) not in (32, 36):
        return f"invalid UUID length: {len(text)}"
    form = _UUID if len(plain) == 36 else re.compile("[0-9a-f]{32}")
    return "" if form.fullmatch(plain.lower()) else "invalid UUID format"


def _allocation(path: str, found: Mapping[str, Any], known: Names) -> Complaints:
    devices, path_ = found.get("devices") or {}, f"{path}.devices"
    results, config = devices.get("results"), devices.get("config")
    out = each(f"{path_}.results", results, _MOST_RESULTS, lambda at, one: _result(at, one, known))
    out += each(f"{path_}.config", config, 2 * _MOST_CONFIG, lambda at, one: _given_config(at, one, known))
    if found.get("nodeSelector") is not None:
        out += node_selector(f"{path}.nodeSelector", found["nodeSelector"])
    return out


def _result(path: str, found: Mapping[str, Any], known: Names) -> Complaints:
    out = _reference(f"{path}.request", found.get("request") or "", known)
    out += driver_name(f"{path}.driver", found.get("driver") or "")
    out += pool_name(f"{path}.pool", found.get("pool") or "") + label(f"{path}.device", found.get("device") or "")
    return out + binding(path, found) + _share(f"{path}.shareID", found.get("shareID"))


def _given_config(path: str, found: Mapping[str, Any], known: Names) -> Complaints:
    source = found.get("source") or ""
    out: Complaints = []
    if not source:
        out.append(required(f"{path}.source"))
    elif source not in _SOURCES:
        out.append(not_supported(f"{path}.source", source, _SOURCES))
    return out + _config(path, found, known)


def _device(found: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return (found.get("driver") or "", found.get("pool") or "", found.get("device") or "", found.get("shareID") or "")


def _shown(found: Mapping[str, Any]) -> str:
    """As Go prints the struct."""
    driver, pool, device, share = _device(found)
    return msgspec.json.encode({"Driver": driver, "Pool": pool, "Device": device, "ShareID": share}).decode()


def _prepare_status(new: Object, old: Object) -> None:
    """Only the status changes; devices that are given back report no more."""
    new["spec"] = old["spec"]
    status = new.get("status") or {}
    gone = _given(old) - _given(new)
    if gone and status.get("devices"):
        status["devices"] = [one for one in status["devices"] if _device(one) not in gone]
        if not status["devices"]:
            del status["devices"]


def _given(claim: Object) -> set[tuple[str, str, str, str]]:
    found: Sequence[Mapping[str, Any]] = dig(claim, "status", "allocation", "devices", "results") or ()
    return {_device(one) for one in found}


# Classes ---------------------------------------------------------------------------------------------------------


def validate_class(found: Object) -> Complaints:
    """Selectors select, configuration is for a driver, and pods may name it as they name other resources."""
    spec = found.get("spec") or {}
    out = selectors("spec.selectors", spec.get("selectors"))
    out += each("spec.config", spec.get("config"), _MOST_CONFIG, configuration)
    name = spec.get("extendedResourceName")
    if name is not None and not is_extended(name):
        out.append(invalid("spec.extendedResourceName", name, "must be a valid extended resource name"))
    return out


def _class_name(name: str, prefix: bool = False) -> list[str]:
    """As other names, in words of its own."""
    return [text.replace("253 characters", "253 bytes") for text in names.subdomain_name(name, prefix)]


def default_class(found: Object) -> None:
    """There is a spec, if only an empty one."""
    found.setdefault("spec", {})


def _state(claim: Object, now: float) -> str:
    """What becomes of a claim, in the words of `kubectl get`."""
    ending, status = bool(claim["metadata"].get("deletionTimestamp")), claim.get("status") or {}
    found = ["deleted"] if ending else []
    if not status.get("allocation"):
        return ",".join(found or ["pending"])
    return ",".join([*found, "allocated", *(["reserved"] if status.get("reservedFor") else [])])


CLAIM = Behavior(
    GROUP,
    "ResourceClaim",
    default=default_claim,
    validate=validate_claim,
    prepare_create=strategy.begin({}),
    updates={
        "": Update(strategy.keep("status"), _claim_update, "nmu"),
        "status": Update(_prepare_status, _validate_status),
    },
    columns=(NAME, Column("State", _state), AGE),
)
TEMPLATE = Behavior(
    GROUP,
    "ResourceClaimTemplate",
    default=default_template,
    validate=validate_template,
    validate_update=_template_update,
    order="nvmu",
    columns=(NAME, AGE),
)
CLASS = Behavior(
    GROUP,
    "DeviceClass",
    default=default_class,
    validate=validate_class,
    order="nmv",
    name_rule=_class_name,
    columns=(NAME, AGE),
)
