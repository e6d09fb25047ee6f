"""resource.k8s.io: claims on devices, their templates, classes of devices, and what drivers publish.

Selectors' CEL is not compiled here. Source: pkg/apis/resource/{v1,validation}, the strategies in pkg/registry/resource.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from steersman.api import names
from steersman.api.errors import FieldError
from steersman.api.kind import Behavior, Update
from steersman.api.kinds import strategy
from steersman.api.resource import Object
from steersman.api.table import dig
from steersman.api.validation import (
    duplicate,
    each_invalid,
    immutable,
    invalid,
    not_supported,
    required,
    too_many,
)

GROUP = "resource.k8s.io"
_ALL, _EXACT = "All", "ExactCount"
_MOST = {"requests": 32, "constraints": 32, "config": 32}
_MOST_SUBREQUESTS = 8
_WHERE = ("nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection")
_ONE_REQUEST = "exactly one of `exactly` or `firstAvailable` is required"
_REFERENCE = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"

Complaints = list[FieldError]


def _asked(spec: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Everything that asks for devices of one class."""
    for request in dig(spec, "devices", "requests") or ():
        if request.get("exactly") is not None:
            yield request["exactly"]
        yield from request.get("firstAvailable") or ()


def _default_spec(spec: dict[str, Any]) -> None:
    spec.setdefault("devices", {})
    for asked in _asked(spec):
        asked["allocationMode"] = asked.get("allocationMode") or _EXACT
        if asked["allocationMode"] == _EXACT and not asked.get("count"):
            asked["count"] = 1


def default_claim(claim: Object) -> None:
    """One device, unless more are asked for."""
    _default_spec(claim.setdefault("spec", {}))
    claim.setdefault("status", {})


def default_template(template: Object) -> None:
    """As the claims that it makes."""
    spec = template.setdefault("spec", {})
    spec.setdefault("metadata", {})
    _default_spec(spec.setdefault("spec", {}))


def _validate_spec(path: str, spec: Mapping[str, Any]) -> Complaints:
    devices = spec.get("devices") or {}
    path = f"{path}.devices"
    out: Complaints = []
    for key, most in _MOST.items():
        if len(devices.get(key) or ()) > most:
            out.append(too_many(f"{path}.{key}", len(devices[key]), most))
    seen: dict[str, set[str]] = {}
    for i, request in enumerate(devices.get("requests") or ()):
        here = f"{path}.requests[{i}]"
        out += _request(here, request)
        if request.get("name", "") in seen:
            out.append(duplicate(here, request.get("name", "")))
        seen[request.get("name", "")] = {each.get("name", "") for each in request.get("firstAvailable") or ()}
    for key in ("constraints", "config"):
        for i, entry in enumerate(devices.get(key) or ()):
            here = f"{path}.{key}[{i}]"
            for j, name in enumerate(entry.get("requests") or ()):
                first, _, second = name.partition("/")
                if first not in seen or (second and second not in seen[first]):
                    out.append(invalid(f"{here}.requests[{j}]", name, _REFERENCE))
            out += _constraint(here, entry) if key == "constraints" else _configuration(here, entry)
    return out


def _request(path: str, request: Mapping[str, Any]) -> Complaints:
    out = _label(f"{path}.name", request.get("name") or "")
    exactly, several = request.get("exactly"), request.get("firstAvailable") or []
    if exactly is None and not several:
        out.append(required(path, _ONE_REQUEST))
    elif exactly is not None and several:
        out.append(invalid(path, None, f"{_ONE_REQUEST}, but multiple fields are set"))
    elif exactly is not None:
        out += _one(f"{path}.exactly", exactly)
    elif len(several) > _MOST_SUBREQUESTS:
        out.append(too_many(f"{path}.firstAvailable", len(several), _MOST_SUBREQUESTS))
    else:
        taken: set[str] = set()
        for i, each in enumerate(several):
            here, name = f"{path}.firstAvailable[{i}]", each.get("name") or ""
            out += _label(f"{here}.name", name) + _one(here, each)
            if name in taken:
                out.append(duplicate(here, name))
            taken.add(name)
    return out


def _label(path: str, name: str) -> Complaints:
    return each_invalid(path, name, names.dns_label(name)) if name else [required(path)]


def _one(path: str, asked: Mapping[str, Any]) -> Complaints:
    out = _subdomain(f"{path}.deviceClassName", asked.get("deviceClassName") or "")
    out += _selectors(f"{path}.selectors", asked.get("selectors") or ())
    mode, count = asked.get("allocationMode") or "", asked.get("count") or 0
    if mode not in (_ALL, _EXACT):
        out.append(not_supported(f"{path}.allocationMode", mode, (_ALL, _EXACT)))
    elif mode == _ALL and count:
        out.append(invalid(f"{path}.count", count, f"must not be specified when allocationMode is '{_ALL}'"))
    elif mode == _EXACT and count <= 0:
        out.append(invalid(f"{path}.count", count, "must be greater than zero"))
    return out


def _subdomain(path: str, name: str) -> Complaints:
    return each_invalid(path, name, names.dns_subdomain(name)) if name else [required(path)]


def _selectors(path: str, selectors: Any) -> Complaints:
    return [required(f"{path}[{i}].cel") for i, each in enumerate(selectors) if each.get("cel") is None]


def _constraint(path: str, found: Mapping[str, Any]) -> Complaints:
    if found.get("matchAttribute") is None and found.get("distinctAttribute") is None:
        return [required(path, "exactly one of `matchAttribute` or `distinctAttribute` is required")]
    return []


def _configuration(path: str, found: Mapping[str, Any]) -> Complaints:
    opaque = found.get("opaque")
    if opaque is None:
        return [required(f"{path}.opaque")]
    out = _subdomain(f"{path}.opaque.driver", opaque.get("driver") or "")
    if opaque.get("parameters") is None:
        out.append(required(f"{path}.opaque.parameters"))
    return out


def validate_claim(claim: Object) -> Complaints:
    """Each request is one thing, by a name of its own."""
    return _validate_spec("spec", claim.get("spec") or {})


def validate_template(template: Object) -> Complaints:
    """As the claims that it makes."""
    return _validate_spec("spec.spec", dig(template, "spec", "spec") or {})


def validate_spec_update(new: Object, old: Object) -> Complaints:
    """What is asked for stays."""
    return immutable("spec", new.get("spec"), old.get("spec"))


def _validate_status(new: Object, old: Object) -> Complaints:
    """Devices that report are devices that were given; what was given stays."""
    status, before = new.get("status") or {}, old.get("status") or {}
    given = {_device(each) for each in dig(status, "allocation", "devices", "results") or ()}
    out: Complaints = []
    for i, each in enumerate(status.get("devices") or ()):
        if _device(each) not in given:
            driver, pool, device, share = _device(each)
            shown = {"Driver": driver, "Pool": pool, "Device": device, "ShareID": share}
            text = msgspec.json.encode(shown).decode()  # in the order of Go's struct
            text = f"Invalid value: {text}: must be an allocated device in the claim"
            out.append(FieldError("FieldValueInvalid", f"status.devices[{i}]", text, shown))
    if before.get("allocation") and status.get("allocation"):
        out += immutable("status.allocation", status["allocation"], before["allocation"])
    reserved = status.get("reservedFor") or []
    if reserved and not status.get("allocation"):
        out.append(FieldError("FieldValueForbidden", "status.reservedFor", "Forbidden: may not be specified when "
                              "`allocated` is not set"))  # fmt: skip
    return out


def _device(each: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return (each.get("driver") or "", each.get("pool") or "", each.get("device") or "", each.get("shareID") or "")


def _prepare_status(new: Object, old: Object) -> None:
    """Only the status changes."""
    new["spec"] = old["spec"]


def validate_class(found: Object) -> Complaints:
    """Selectors select, configuration is for a driver."""
    spec = found.get("spec") or {}
    out = _selectors("spec.selectors", spec.get("selectors") or ())
    for i, each in enumerate(spec.get("config") or ()):
        out += _configuration(f"spec.config[{i}]", each)
    return out


def default_class(found: Object) -> None:
    """There is a spec, if only an empty one."""
    found.setdefault("spec", {})


def default_slice(found: Object) -> None:
    """A pool begins with generation 0."""
    pool = found.setdefault("spec", {}).setdefault("pool", {})
    pool.setdefault("generation", 0)


def validate_slice(found: Object) -> Complaints:
    """A driver's devices, and one way to say on which nodes they are."""
    spec = found.get("spec") or {}
    pool = spec.get("pool") or {}
    out = _subdomain("spec.driver", spec.get("driver") or "")
    parts = (pool.get("name") or "").split("/")
    if parts == [""]:
        out.append(required("spec.pool.name"))
    else:
        out += [error for part in parts for error in each_invalid("spec.pool.name", part, names.dns_subdomain(part))]
    count = pool.get("resourceSliceCount") or 0
    if count <= 0:
        out.append(invalid("spec.pool.resourceSliceCount", count, "must be greater than zero"))
    if (pool.get("generation") or 0) < 0:
        out.append(invalid("spec.pool.generation", pool["generation"], "must be greater than or equal to zero"))
    where = [f"`{key}`" for key in _WHERE if spec.get(key)]
    one_of = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
    if not where:
        out.append(required("spec", one_of))
    elif len(where) > 1:
        out.append(invalid("spec", f"{{{', '.join(where)}}}", f"{one_of}, but multiple fields are set"))
    taken: set[str] = set()
    for i, device in enumerate(spec.get("devices") or ()):
        name, here = device.get("name") or "", f"spec.devices[{i}]"
        out += _label(f"{here}.name", name)
        if name in taken:
            out.append(duplicate(f"{here}.name", name))
        taken.add(name)
    return out


def _validate_slice_update(new: Object, old: Object) -> Complaints:
    """Driver, pool and place stay."""
    out: Complaints = []
    for keys in (("driver",), ("pool", "name"), ("nodeName",)):
        out += immutable(f"spec.{'.'.join(keys)}", dig(new, "spec", *keys), dig(old, "spec", *keys))
    return out


BEHAVIORS = (
    Behavior(
        GROUP,
        "ResourceClaim",
        default=default_claim,
        validate=validate_claim,
        validate_update=validate_spec_update,
        prepare_create=strategy.begin({}),
        updates={"status": Update(_prepare_status, _validate_status)},
    ),
    Behavior(
        GROUP,
        "ResourceClaimTemplate",
        default=default_template,
        validate=validate_template,
        validate_update=validate_spec_update,
    ),
    Behavior(GROUP, "DeviceClass", default=default_class, validate=validate_class),
    Behavior(
        GROUP,
        "ResourceSlice",
        default=default_slice,
        validate=validate_slice,
        validate_update=_validate_slice_update,
    ),
)
