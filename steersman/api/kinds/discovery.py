"""EndpointSlice.

Source: SetDefaults_EndpointPort, ValidateEndpointSlice, pkg/registry/discovery/endpointslice/strategy.go,
printEndpointSlice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steersman.api import names
from steersman.api.errors import FieldError
from steersman.api.kind import Behavior, Column
from steersman.api.kinds import strategy
from steersman.api.kinds.core.service import endpoint_ip
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, UNSET, field, joined
from steersman.api.validation import duplicate, immutable, invalid, not_supported, required, too_many

Complaints = list[FieldError]

_TYPES = ("FQDN", "IPv4", "IPv6")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_MOST_ENDPOINTS = 1000
_MOST_PORTS = 20_000
_MOST_ADDRESSES = 100
_MOST_HINTS = 8


def default(endpoint_slice: Object) -> None:
    """Ports are TCP and have a name, if an empty one."""
    for key in ("endpoints", "ports"):
        endpoint_slice[key] = endpoint_slice.get(key) or None
    for port in endpoint_slice["ports"] or ():
        port.setdefault("name", "")
        port.setdefault("protocol", "TCP")
    for endpoint in endpoint_slice["endpoints"] or ():
        endpoint.setdefault("conditions", {})
        endpoint.pop("deprecatedTopology", None)  # of v1beta1: v1 reads it and says nothing
        hints = endpoint.get("hints") or {}
        for hint in (*(hints.get("forZones") or ()), *(hints.get("forNodes") or ())):
            hint.setdefault("name", "")


def prepare_create(endpoint_slice: Object) -> None:
    """The first generation."""
    endpoint_slice["metadata"]["generation"] = 1


def prepare_update(new: Object, old: Object) -> None:
    """Labels count as a change."""
    keys = (new.keys() | old.keys()) - {"metadata", "apiVersion", "kind"}
    changed = any(strategy.differs(new.get(key), old.get(key)) for key in keys)
    changed = changed or strategy.differs(new["metadata"].get("labels"), old["metadata"].get("labels"))
    strategy.count(new, old, changed=changed)


def validate(endpoint_slice: Object) -> Complaints:
    """Type, ports, endpoints."""
    kind = endpoint_slice.get("addressType") or ""
    out: Complaints = []
    if not kind:
        out.append(required("addressType"))
    elif kind not in _TYPES:
        out.append(not_supported("addressType", kind, _TYPES))
    out += _ports(endpoint_slice.get("ports") or ())
    endpoints = endpoint_slice.get("endpoints") or ()
    if len(endpoints) > _MOST_ENDPOINTS:
        return [*out, too_many("endpoints", len(endpoints), _MOST_ENDPOINTS)]
    for i, endpoint in enumerate(endpoints):
        out += _endpoint(f"endpoints[{i}]", endpoint, kind)
    return out


def _ports(ports: Sequence[Mapping[str, Any]]) -> Complaints:
    if len(ports) > _MOST_PORTS:
        return [too_many("ports", len(ports), _MOST_PORTS)]
    out: Complaints = []
    seen: set[str] = set()
    for i, port in enumerate(ports):
        here, name = f"ports[{i}]", port.get("name") or ""
        if name:
            out += [invalid(f"{here}.name", name, text) for text in names.dns_label(name)]
        if name in seen:
            out.append(duplicate(f"{here}.name", name))
        seen.add(name)
        if port.get("protocol") not in _PROTOCOLS:
            out.append(not_supported(f"{here}.protocol", port.get("protocol") or "", _PROTOCOLS))
        if (application := port.get("appProtocol")) is not None:
            out += [invalid(f"{here}.appProtocol", application, text) for text in names.qualified(application)]
    return out


def _endpoint(path: str, endpoint: Mapping[str, Any], kind: str) -> Complaints:
    addresses = endpoint.get("addresses") or ()
    here = f"{path}.addresses"
    out: Complaints = []
    if not addresses:
        out.append(required(here, "must contain at least 1 address"))
    elif len(addresses) > _MOST_ADDRESSES:
        out.append(too_many(here, len(addresses), _MOST_ADDRESSES))
    for i, address in enumerate(addresses):
        out += _address(here, i, address, kind)
    if (node := endpoint.get("nodeName")) is not None:
        out += [invalid(f"{path}.nodeName", node, text) for text in names.dns_subdomain(node)]
    if (host := endpoint.get("hostname")) is not None:
        out += [invalid(f"{path}.hostname", host, text) for text in names.dns_label(host)]
    return out + _hints(f"{path}.hints", endpoint.get("hints") or {})


def _hints(path: str, hints: Mapping[str, Any]) -> Complaints:
    out: Complaints = []
    for key, rule in (("forZones", names.label_value), ("forNodes", names.dns_subdomain)):
        given = hints.get(key) or ()
        if len(given) > _MOST_HINTS:
            return [*out, too_many(f"{path}.{key}", len(given), _MOST_HINTS)]
        seen: set[str] = set()
        for i, hint in enumerate(given):
            here, name = f"{path}.{key}[{i}].name", hint.get("name") or ""
            if name in seen:
                out.append(duplicate(here, name))
            seen.add(name)
            out += [invalid(here, name, text) for text in rule(name)]
    return out


def _address(path: str, i: int, address: str, kind: str) -> Complaints:
    here = f"{path}[{i}]"
    if kind == "FQDN":
        texts = names.dns_subdomain(address.removesuffix("."))
        return [invalid(here, address, ",".join(texts))] if texts else []
    if kind not in ("IPv4", "IPv6"):
        return []
    out = names.legacy_ip(here, address) if kind == "IPv4" else names.ip(here, address)
    if out:
        return out
    if (":" in address) != (kind == "IPv6"):
        out.append(invalid(path, address, f"must be an {kind} address"))
    return out + endpoint_ip(here, address)


def validate_update(new: Object, old: Object) -> Complaints:
    """The type of addresses never changes."""
    return immutable("addressType", new.get("addressType") or "", old.get("addressType"))


def _ports_text(endpoint_slice: Object, now: float) -> str:
    found = endpoint_slice.get("ports") or ()
    shown = [str(port["port"]) if "port" in port else port.get("name", "*") for port in found]
    return joined(shown, 3) or UNSET


def _endpoints_text(endpoint_slice: Object, now: float) -> str:
    found = endpoint_slice.get("endpoints") or ()
    return joined([address for each in found for address in each.get("addresses") or ()], 3) or UNSET


ENDPOINTSLICE = Behavior(
    "discovery.k8s.io",
    "EndpointSlice",
    order="nvu",
    default=default,
    validate=validate,
    validate_update=validate_update,
    prepare_create=prepare_create,
    prepare_update=prepare_update,
    columns=(
        NAME,
        field("AddressType", "addressType"),
        Column("Ports", _ports_text),
        Column("Endpoints", _endpoints_text),
        AGE,
    ),
)
