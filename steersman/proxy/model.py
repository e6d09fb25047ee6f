"""Services and EndpointSlices to frontends: which address and port leads to which pods, and how.

Owns the rules of Services. Pure: given a Service, its slices and where we are, it returns values; `nftables` turns them
into map elements. Source: the Service and EndpointSlice documentation, KEP-1669 (terminating endpoints), KEP-2433
(topology hints), KEP-1860 (ipMode); kube-proxy's behaviour where these are silent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import NamedTuple

from steersman.api.resource import Object

ANY = ""  # every address of the node
_IGNORE_LABEL = "service.kubernetes.io/service-proxy-name"
_HEADLESS_LABEL = "service.kubernetes.io/headless"
SERVICE_NAME_LABEL = "kubernetes.io/service-name"
_DEFAULT_AFFINITY = 10_800


class Masquerade(StrEnum):
    """Whose source address is replaced by the node's."""

    CLUSTER = "c"  # of what does not come from a pod
    ALWAYS = "x"  # of everything: replies must come back through this node
    NEVER = "l"  # of nothing: the pod sees the client (external traffic policy Local)
    LOOPBACK = "h"  # of what comes from the node's loopback (host ports)


class Backend(NamedTuple):
    """One endpoint."""

    ip: str
    port: int
    local: bool = False


@dataclass(frozen=True, slots=True)
class Frontend:
    """One address, protocol and port. `outside`: serves only what comes neither from pods nor from this node.

    No backends: refused, or dropped when `outside`. `affinity` in seconds, 0 for none. `sources`: who may ask, all if
    empty.
    """

    ip: str  # ANY: a port of the node
    protocol: str  # tcp, udp, sctp
    port: int
    backends: tuple[Backend, ...]
    masquerade: Masquerade
    outside: bool = False
    affinity: int = 0
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Where:
    """The node that frontends are for."""

    node: str
    zone: str = ""


@dataclass(frozen=True, slots=True, order=True)
class HostPort:
    """A port of the node that leads to one pod. `host_ip` empty: every address."""

    host_ip: str
    protocol: str
    port: int
    pod_ip: str
    container_port: int


@dataclass(frozen=True, slots=True)
class _Endpoint:
    ip: str
    port: int
    ready: bool
    draining: bool  # serving, and terminating
    local: bool
    zones: tuple[str, ...]
    nodes: tuple[str, ...]

    def backend(self) -> Backend:
        return Backend(self.ip, self.port, self.local)


def frontends(service: Object, slices: Iterable[Object], where: Where) -> list[Frontend]:
    """Everything that leads to a Service on one node; nothing for headless ones and those of another proxy."""
    spec = service.get("spec") or {}
    labels = service["metadata"].get("labels") or {}
    cluster_ips = [ip for ip in spec.get("clusterIPs") or [spec.get("clusterIP") or ""] if _is_ipv4(ip)]
    if spec.get("type") == "ExternalName" or not cluster_ips or _IGNORE_LABEL in labels:
        return []
    known = [each for each in slices if each.get("addressType") == "IPv4" and _HEADLESS_LABEL not in _labels(each)]
    out: list[Frontend] = []
    for port in spec.get("ports") or ():
        endpoints = _endpoints(known, port, where)
        out += _of_port(service, port, cluster_ips, endpoints, where)
    return out


def host_port_frontends(ports: Iterable[HostPort]) -> list[Frontend]:
    """Host ports of the pods here."""
    return [
        Frontend(
            each.host_ip if each.host_ip not in ("", "0.0.0.0") else ANY,
            each.protocol.lower(),
            each.port,
            (Backend(each.pod_ip, each.container_port, True),),
            Masquerade.LOOPBACK,
        )
        for each in ports
    ]


def _labels(obj: Object) -> Object:
    return obj["metadata"].get("labels") or {}


def _is_ipv4(text: str) -> bool:
    try:
        IPv4Address(text)
    except (AddressValueError, ValueError):
        return False
    return True


def _of_port(
    service: Object, port: Object, cluster_ips: Sequence[str], endpoints: Sequence[_Endpoint], where: Where
) -> Iterator[Frontend]:
    spec = service["spec"]
    protocol, number = (port.get("protocol") or "TCP").lower(), int(port["port"])
    everywhere = _backends(endpoints, where)
    here = _backends([each for each in endpoints if each.local], where, hints=False)
    affinity = _affinity(spec)
    inside = here if spec.get("internalTrafficPolicy") == "Local" else everywhere
    for ip in cluster_ips:
        yield Frontend(ip, protocol, number, inside, Masquerade.CLUSTER, affinity=affinity)
    local = spec.get("externalTrafficPolicy") == "Local"
    for ip, at, sources in _external(service, port, number):
        if not local:
            yield Frontend(ip, protocol, at, everywhere, Masquerade.ALWAYS, affinity=affinity, sources=sources)
            continue
        yield Frontend(ip, protocol, at, everywhere, Masquerade.CLUSTER, affinity=affinity, sources=sources)
        yield Frontend(ip, protocol, at, here, Masquerade.NEVER, outside=True, affinity=affinity, sources=sources)


def _external(service: Object, port: Object, number: int) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """(address, port, allowed sources) by which a Service port is reached from outside."""
    spec = service["spec"]
    seen: set[str] = set()
    if spec.get("type") == "LoadBalancer":
        sources = tuple(sorted(filter(_is_network, map(str.strip, spec.get("loadBalancerSourceRanges") or ()))))
        balancer = (service.get("status") or {}).get("loadBalancer") or {}
        for ingress in balancer.get("ingress") or ():
            ip = ingress.get("ip") or ""
            if _is_ipv4(ip) and ingress.get("ipMode", "VIP") == "VIP" and ip not in seen:
                seen.add(ip)
                yield ip, number, sources
    for ip in spec.get("externalIPs") or ():
        if _is_ipv4(ip) and ip not in seen:
            seen.add(ip)
            yield ip, number, ()
    if spec.get("type") in ("NodePort", "LoadBalancer") and port.get("nodePort"):
        yield ANY, int(port["nodePort"]), ()


def _is_network(text: str) -> bool:
    try:
        return bool(IPv4Network(text, strict=False))
    except ValueError:
        return False


def _affinity(spec: Object) -> int:
    if spec.get("sessionAffinity") != "ClientIP":
        return 0
    client_ip = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
    return int(client_ip.get("timeoutSeconds") or _DEFAULT_AFFINITY)


def _endpoints(slices: Iterable[Object], port: Object, where: Where) -> list[_Endpoint]:
    """Endpoints of one Service port: those of the slice port with its name; each address and port once."""
    out: dict[tuple[str, int], _Endpoint] = {}
    for found in slices:
        for slice_port in found.get("ports") or ():
            same = (slice_port.get("name") or "") == (port.get("name") or "")
            if not same or not slice_port.get("port") or not _same_protocol(slice_port, port):
                continue
            number = int(slice_port["port"])
            for endpoint in found.get("endpoints") or ():
                made = _endpoint(endpoint, number, where)
                if made is not None:
                    known = out.get((made.ip, number))
                    if known is None or (made.ready and not known.ready):
                        out[made.ip, number] = made
    return sorted(out.values(), key=lambda each: (each.ip, each.port))


def _same_protocol(one: Object, other: Object) -> bool:
    return (one.get("protocol") or "TCP") == (other.get("protocol") or "TCP")


def _endpoint(endpoint: Object, port: int, where: Where) -> _Endpoint | None:
    addresses = endpoint.get("addresses") or ()
    if not addresses or not _is_ipv4(addresses[0]):
        return None
    conditions = endpoint.get("conditions") or {}
    ready = conditions.get("ready") is not False
    serving = conditions.get("serving")
    serving = ready if serving is None else serving
    hints = endpoint.get("hints") or {}
    return _Endpoint(
        addresses[0],
        port,
        ready,
        bool(serving and conditions.get("terminating")),
        endpoint.get("nodeName") == where.node,
        tuple(hint.get("name", "") for hint in hints.get("forZones") or ()),
        tuple(hint.get("name", "") for hint in hints.get("forNodes") or ()),
    )


def _backends(endpoints: Sequence[_Endpoint], where: Where, *, hints: bool = True) -> tuple[Backend, ...]:
    """Ready endpoints, nearest first where hints say so; without any, those that still serve while they end."""
    ready = [each for each in endpoints if each.ready]
    if hints and ready:
        ready = _near(ready, where)
    chosen = ready or [each for each in endpoints if each.draining]
    return tuple(each.backend() for each in chosen)


def _near(ready: list[_Endpoint], where: Where) -> list[_Endpoint]:
    """What the hints leave for this node; hints count only if every endpoint has them and some are for us."""
    if all(each.nodes for each in ready):
        mine = [each for each in ready if where.node in each.nodes]
        if mine:
            return mine
    if where.zone and all(each.zones for each in ready):
        mine = [each for each in ready if where.zone in each.zones]
        if mine:
            return mine
    return ready
