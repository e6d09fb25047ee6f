"""IP addresses and CIDRs. Source: apiserver's pkg/cel/library (ip, cidr)."""

from __future__ import annotations

import ipaddress
from typing import Any

from steersman.api.cel.functions import Overload, define, scan
from steersman.api.cel.syntax import CelError
from steersman.api.cel.values import Opaque

IP, CIDR = "net.IP", "net.CIDR"


def _ip(text: str) -> Opaque:
    try:
        if "%" in text:
            raise CelError(
                f'IP Address "{text[:100]}" parse error during conversion from string: with zone not allowed'
            )
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise CelError(
            f'IP Address "{text[:100]}" parse error during conversion from string: unable to parse IP'
        ) from error
    if address.version == 6 and address.ipv4_mapped:
        raise CelError(f'IPv4-mapped IPv6 address "{text[:100]}" is not allowed')
    return Opaque(IP, address, address)


def _cidr(text: str) -> Opaque:
    try:
        if "/" not in text or not text.rpartition("/")[2].isdigit():
            raise ValueError(text)
        found = ipaddress.ip_interface(text)
    except ValueError as error:
        raise CelError(f'network address parse error during conversion from string: "{text[:100]}"') from error
    return Opaque(CIDR, found, (found.ip, found.network.prefixlen))


def _good(make: Any) -> Any:
    def run(text: str) -> bool:
        try:
            make(text)
        except CelError:
            return False
        return True

    return run


def _has_ip(net: Opaque, given: Any) -> bool:
    address = (given if isinstance(given, Opaque) else _ip(given)).value
    return bool(address.version == net.value.version and address in net.value.network)


def _has_cidr(net: Opaque, given: Any) -> bool:
    other = (given if isinstance(given, Opaque) else _cidr(given)).value
    return bool(other.version == net.value.version and other.network.subnet_of(net.value.network))


def _local(address: Any) -> bool:
    return bool(address.is_multicast and (
        address in ipaddress.ip_network("224.0.0.0/24") if address.version == 4 else address.packed[1] & 15 == 2
    ))  # fmt: skip


def _global(address: Any) -> bool:
    special = address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local
    return not special and str(address) != "255.255.255.255"


def _masked(net: Opaque) -> Opaque:
    return _cidr(str(net.value.network))


TABLE: list[Overload] = [
    *define(_ip, f"ip(string) {IP}", price=scan(0)),
    *define(_good(_ip), "isIP(string) bool", price=scan(0)),
    *define(lambda text: str(_ip(text).value) == text, "~ip.isCanonical(string) bool", price=scan(0)),
    *define(lambda a: a.value.version, f"{IP}.family() int"),
    *define(lambda a: a.value.is_unspecified, f"{IP}.isUnspecified() bool"),
    *define(lambda a: a.value.is_loopback, f"{IP}.isLoopback() bool"),
    *define(lambda a: _local(a.value), f"{IP}.isLinkLocalMulticast() bool"),
    *define(lambda a: a.value.is_link_local, f"{IP}.isLinkLocalUnicast() bool"),
    *define(lambda a: _global(a.value), f"{IP}.isGlobalUnicast() bool"),
    *define(_cidr, f"cidr(string) {CIDR}", price=scan(0)),
    *define(_good(_cidr), "isCIDR(string) bool", price=scan(0)),
    *define(_has_ip, f"{CIDR}.containsIP({IP}) bool", f"{CIDR}.containsIP(string) bool"),
    *define(_has_cidr, f"{CIDR}.containsCIDR({CIDR}) bool", f"{CIDR}.containsCIDR(string) bool"),
    *define(lambda a: Opaque(IP, a.value.ip, a.value.ip), f"{CIDR}.ip() {IP}"),
    *define(_masked, f"{CIDR}.masked() {CIDR}"),
    *define(lambda a: a.value.network.prefixlen, f"{CIDR}.prefixLength() int"),
]
