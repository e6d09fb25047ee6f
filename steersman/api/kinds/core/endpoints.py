"""Endpoints, the elder of EndpointSlice.

Source: SetDefaults_Endpoints, ValidateEndpoints, RepackSubsets' callers, printEndpoints.
"""

from __future__ import annotations

from typing import Any

from steersman.api import names
from steersman.api.errors import FieldError
from steersman.api.kind import Behavior, Column
from steersman.api.kinds.core.service import endpoint_ip
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, NONE
from steersman.api.validation import invalid, not_supported, required

_PROTOCOLS = ("SCTP", "TCP", "UDP")


def default(endpoints: Object) -> None:
    """Ports are TCP."""
    for subset in endpoints.get("subsets") or ():
        for port in subset.get("ports") or ():
            port["protocol"] = port.get("protocol") or "TCP"


def validate(endpoints: Object) -> list[FieldError]:
    """Addresses and ports of every subset."""
    out: list[FieldError] = []
    for i, subset in enumerate(endpoints.get("subsets") or ()):
        here = f"subsets[{i}]"
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            out.append(required(here, "must specify `addresses` or `notReadyAddresses`"))
        for field in ("addresses", "notReadyAddresses"):
            for j, address in enumerate(subset.get(field) or ()):
                out += _address(f"{here}.{field}[{j}]", address)
        ports = subset.get("ports") or ()
        for j, port in enumerate(ports):
            out += _port(f"{here}.ports[{j}]", port, named=len(ports) > 1)
    return out


def _address(path: str, address: Object) -> list[FieldError]:
    ip = address.get("ip") or ""
    out = names.legacy_ip(f"{path}.ip", ip)
    if host := address.get("hostname"):
        out += [invalid(f"{path}.hostname", host, text) for text in names.dns_label(host)]
    if (node := address.get("nodeName")) is not None:
        out += [invalid(f"{path}.nodeName", node, text) for text in names.dns_subdomain(node)]
    return out + endpoint_ip(f"{path}.ip", ip)


def _port(path: str, port: Object, *, named: bool) -> list[FieldError]:
    name, number, protocol = port.get("name") or "", port.get("port") or 0, port.get("protocol") or ""
    out: list[FieldError] = []
    if name:
        out += [invalid(f"{path}.name", name, text) for text in names.dns_label(name)]
    elif named:
        out.append(required(f"{path}.name"))
    out += [invalid(f"{path}.port", number, text) for text in names.port(number)]
    if not protocol:
        out.append(required(f"{path}.protocol"))
    elif protocol not in _PROTOCOLS:
        out.append(not_supported(f"{path}.protocol", protocol, _PROTOCOLS))
    if (application := port.get("appProtocol")) is not None:
        out += [invalid(f"{path}.appProtocol", application, text) for text in names.qualified(application)]
    return out


def _shown(endpoints: Object, now: float) -> str:
    subsets = endpoints.get("subsets") or ()
    if not subsets:
        return NONE
    found: list[str] = []
    for subset in subsets:
        ports: list[Any] = subset.get("ports") or [None]
        for port in ports:
            for address in subset.get("addresses") or ():
                ip = address.get("ip", "")
                host = f"[{ip}]" if ":" in ip and port else ip
                found.append(f"{host}:{port.get('port', 0)}" if port else ip)
    text = ",".join(found[:3])
    return f"{text} + {len(found) - 3} more..." if len(found) > 3 else text


ENDPOINTS = Behavior(
    "",
    "Endpoints",
    order="mnv",
    default=default,
    validate=validate,
    columns=(NAME, Column("Endpoints", _shown), AGE),
)
