"""Addresses and node ports of Services: given out, checked, taken back.

Owns which are in use, learned from the cached Services. Hooked into the writes of Services; called by nobody else.
Source: pkg/registry/core/service/storage/alloc.go and service/ipallocator, portallocator.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, ip_address
from typing import Any

from steersman.api import errors
from steersman.api.errors import ApiError, FieldError
from steersman.api.resource import Object
from steersman.apiserver.call import Call

HEADLESS = "None"
_PORT_TYPES = ("NodePort", "LoadBalancer")


class Allocator:
    """Gives a new Service what it lacks."""

    def __init__(self, server: Any, network: IPv4Network, ports: tuple[int, int]) -> None:
        self._server = server
        self._network = network
        self._ports = ports

    def attach(self) -> None:
        """Hook into creates and updates of Services."""
        extras = self._server.services.extras
        extras.setdefault("before_create", {}).setdefault(("", "Service"), []).append(self.created)
        extras.setdefault("before_update", {}).setdefault(("", "Service"), []).append(self.updated)

    def _services(self, but: str = "") -> Iterator[Object]:
        kind = self._server.registry.find("", "services")
        storage = self._server.storage
        for _, item in storage.cache(kind).items(storage.prefix(kind)):
            obj = item.obj()
            if obj["metadata"]["uid"] != but:
                yield obj

    def _used(self, but: str = "") -> tuple[set[str], set[tuple[str, int]]]:
        addresses: set[str] = set()
        ports: set[tuple[str, int]] = set()
        for service in self._services(but):
            spec = service["spec"]
            addresses.update(ip for ip in spec.get("clusterIPs") or () if ip != HEADLESS)
            ports.update(
                (p.get("protocol", "TCP"), p["nodePort"]) for p in spec.get("ports") or () if p.get("nodePort")
            )
            if health := spec.get("healthCheckNodePort"):
                ports.add(("TCP", health))
        return addresses, ports

    async def created(self, call: Call, obj: Object) -> None:
        """Allocate for a new Service. Raises ApiError."""
        self._allocate(call, obj, None)

    async def updated(self, call: Call, obj: Object, old: Object) -> None:
        """Allocate what a change of type or ports calls for. Raises ApiError."""
        if not call.info.subresource:
            self._allocate(call, obj, old)

    def _allocate(self, call: Call, obj: Object, old: Object | None) -> None:
        spec, kind = obj["spec"], obj["spec"].get("type", "ClusterIP")
        before = (old or {}).get("spec") or {}
        if kind == "ExternalName":
            for key in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                spec.pop(key, None)
            return
        if before.get("clusterIP") and not spec.get("clusterIP") and before.get("type") != "ExternalName":
            spec["clusterIP"], spec["clusterIPs"] = before["clusterIP"], before["clusterIPs"]
        spec.setdefault("ipFamilyPolicy", before.get("ipFamilyPolicy", "SingleStack"))
        spec.setdefault("ipFamilies", before.get("ipFamilies", ["IPv4"]))
        addresses, ports = self._used(obj["metadata"]["uid"])
        self._address(call, obj, addresses)
        if kind in _PORT_TYPES and spec.get("allocateLoadBalancerNodePorts") is not False:
            self._node_ports(call, obj, before, ports)
        elif kind not in _PORT_TYPES:
            self._drop_ports(spec, before)

    def _address(self, call: Call, obj: Object, used: set[str]) -> None:
        spec = obj["spec"]
        wanted = spec.get("clusterIP") or next(iter(spec.get("clusterIPs") or ()), "")
        if wanted == HEADLESS:
            spec["clusterIP"], spec["clusterIPs"] = HEADLESS, [HEADLESS]
            return
        if wanted:
            self._check(obj, wanted, used)
        else:
            wanted = self._free(call, used)
        spec["clusterIP"], spec["clusterIPs"] = wanted, [wanted]

    def _check(self, obj: Object, wanted: str, used: set[str]) -> None:
        try:
            inside = ip_address(wanted) in self._network
        except ValueError:
            return  # validation says what is wrong with it
        if not inside:
            text = (
                f"failed to allocate IP {wanted}: the provided IP ({wanted}) is not in the valid range. "
                f"The range of valid IPs is {self._network}"
            )
        elif wanted in used:
            text = f"failed to allocate IP {wanted}: provided IP is already allocated"
        else:
            return
        raise _invalid(obj, "spec.clusterIPs", [wanted], text)

    def _free(self, call: Call, used: set[str]) -> str:
        """A random address from the upper part of the range, as the original keeps the lower for those who choose.

        Source: KEP-3070.
        """
        size = self._network.num_addresses
        lower = min(max(16, size // 16), 256) + 1
        first = int(self._network.network_address)
        for low, high in ((lower, size - 1), (1, lower)):
            span = high - low
            start = call.services.random.randrange(span) if span > 0 else 0
            for step in range(span):
                address = str(IPv4Address(first + low + (start + step) % span))
                if address not in used:
                    return address
        raise errors.internal("failed to allocate a serviceIP: range is full")

    def _node_ports(self, call: Call, obj: Object, before: Object, used: set[tuple[str, int]]) -> None:
        mine: dict[tuple[int, str], int] = {}
        for port in before.get("ports") or ():
            if port.get("nodePort"):
                mine[port["port"], port.get("protocol", "TCP")] = port["nodePort"]
        given: dict[int, set[str]] = {}
        for at, port in enumerate(obj["spec"].get("ports") or ()):
            protocol = port.get("protocol", "TCP")
            if not port.get("nodePort"):
                port["nodePort"] = mine.get((port["port"], protocol)) or self._shared(given, protocol, port, obj)
            if port["nodePort"]:
                self._check_port(obj, f"spec.ports[{at}].nodePort", protocol, port["nodePort"], used, given)
            else:
                port["nodePort"] = self._free_port(call, protocol, used)
            used.add((protocol, port["nodePort"]))
            given.setdefault(port["nodePort"], set()).add(protocol)
        spec = obj["spec"]
        local = spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"
        if local and not spec.get("healthCheckNodePort"):
            spec["healthCheckNodePort"] = before.get("healthCheckNodePort") or self._free_port(call, "TCP", used)

    @staticmethod
    def _shared(given: dict[int, set[str]], protocol: str, port: Object, obj: Object) -> int:
        """One port number serves both protocols of one service port."""
        for other in obj["spec"]["ports"]:
            same = other.get("port") == port["port"] and other.get("protocol", "TCP") != protocol
            if same and other.get("nodePort") and protocol not in given.get(other["nodePort"], set()):
                return int(other["nodePort"])
        return 0

    def _check_port(
        self, obj: Object, path: str, protocol: str, wanted: int, used: set[tuple[str, int]], given: dict[int, set[str]]
    ) -> None:
        if not self._ports[0] <= wanted <= self._ports[1]:
            valid = f"{self._ports[0]}-{self._ports[1]}"
            text = f"provided port is not in the valid range. The range of valid ports is {valid}"
        elif (protocol, wanted) in used or protocol in given.get(wanted, set()):
            text = "provided port is already allocated"
        else:
            return
        raise _invalid(obj, path, wanted, text)

    def _free_port(self, call: Call, protocol: str, used: set[tuple[str, int]]) -> int:
        low, high = self._ports
        span = high - low + 1
        start = call.services.random.randrange(span)
        for step in range(span):
            port = low + (start + step) % span
            if not any((name, port) in used for name in ("TCP", "UDP", "SCTP")):
                return port
        raise errors.internal("failed to allocate a nodePort: range is full")

    @staticmethod
    def _drop_ports(spec: Object, before: Object) -> None:
        """Node ports that were given are taken back when the type no longer has any."""
        if before.get("type") in _PORT_TYPES:
            old = {port.get("nodePort") for port in before.get("ports") or ()}
            for port in spec.get("ports") or ():
                if port.get("nodePort") in old:
                    port.pop("nodePort", None)
            spec.pop("healthCheckNodePort", None)


def _invalid(obj: Object, path: str, value: Any, text: str) -> ApiError:
    shown = errors_value(value)
    found = FieldError("FieldValueInvalid", path, f"Invalid value: {shown}: {text}", value)
    return errors.invalid("", "Service", obj["metadata"].get("name", ""), [found])


def errors_value(value: Any) -> str:
    """A value as Go's field errors print it."""
    if isinstance(value, list):
        return "[" + ",".join(f'"{item}"' for item in value) + "]"
    return str(value)
