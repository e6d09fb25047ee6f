"""What the cluster's names mean: Services, endpoints and pods to DNS records.

Owns the answers for the cluster's domain and for the reverse names of its networks. Pure: it reads a `Catalog` and
knows no sockets. Called by `agent`. Source: the Kubernetes DNS-Based Service Discovery specification 1.1.0; where that
is silent, what CoreDNS does with pods insecure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Protocol

from steersman.api.resource import Object
from steersman.dns import message
from steersman.dns.message import Code, Name, Record, Type

TTL = 5  # seconds
_VERSION = "1.1.0"
_REVERSE = ("in-addr", "arpa")
_HEADLESS = "None"


class Catalog(Protocol):
    """Where Services and EndpointSlices are looked up."""

    def service(self, namespace: str, name: str) -> Object | None:
        """One Service."""
        ...

    def has_namespace(self, namespace: str) -> bool:
        """Whether a namespace has a Service."""
        ...

    def slices(self, namespace: str, service: str) -> Sequence[Object]:
        """The EndpointSlices of a Service."""
        ...

    def services_at(self, ip: str) -> Sequence[Object]:
        """Services with this cluster IP."""
        ...

    def slices_at(self, ip: str) -> Sequence[Object]:
        """EndpointSlices that have an endpoint with this address."""
        ...


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. `chase`: a name outside the domain that the last CNAME leads to."""

    code: Code
    answers: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    chase: Name | None = None


@dataclass(frozen=True, slots=True)
class _Address:
    """A ready endpoint of a headless Service at one of its ports; port 0: it names none."""

    ip: str
    host: str
    port: int
    port_name: str
    protocol: str


NOTHING = Reply(Code.NXDOMAIN)
NODATA = Reply(Code.NOERROR)


class Records:
    """The names of one cluster."""

    def __init__(self, catalog: Catalog, *, domain: str, networks: Sequence[str]) -> None:
        """`domain`: such as cluster.local; `networks`: whose reverse names are ours. Raises ValueError."""
        self._catalog = catalog
        self.domain = message.lower(message.name_of(domain))
        if not self.domain or not message.is_writable(self.domain):
            raise ValueError(f"invalid cluster domain {domain!r}")
        self._networks = [IPv4Network(network) for network in networks]

    def owns(self, name: Name) -> bool:
        """Whether we, and nobody else, know this name."""
        name = message.lower(name)
        if self._below(name) is not None:
            return True
        ip = _reversed(name)
        return ip is not None and any(ip in network for network in self._networks)

    def zone(self, name: Name) -> Name:
        """The zone that an owned name is in, for its SOA."""
        return self.domain if self._below(message.lower(name)) is not None else _REVERSE

    def authority(self, name: Name) -> Record:
        """The SOA record that goes with a negative answer."""
        zone = self.zone(name)
        server, mailbox = ("ns", "dns", *self.domain), ("hostmaster", *self.domain)
        return Record(zone, Type.SOA, TTL, message.soa(mailbox, 1, 7200, 1800, 86400, TTL, server))

    def reply(self, name: Name, kind: int) -> Reply:
        """The answer for a name that we own; its records carry the name as asked."""
        plain = message.lower(name)
        below = self._below(plain)
        if below is None:
            return self._reverse(name, plain, kind)
        if not below:
            apex = [(Type.SOA, self.authority(name).data), (Type.NS, message.pointer(("ns", "dns", *self.domain)))]
            return self._records(name, kind, apex)
        rest, branch = below[:-1], below[-1]
        if branch == "svc":
            return self._in_services(name, rest, kind)
        if branch == "pod":
            return self._pod(name, rest, kind)
        if below == ("dns-version",):
            return self._records(name, kind, [(Type.TXT, message.txt(_VERSION))])
        if below == ("ns", "dns"):
            service = self._catalog.service("kube-system", "kube-dns")
            ips = _cluster_ips(service) if service else []
            return self._records(name, kind, [(Type.A, message.a(ip)) for ip in ips])
        return NODATA if below == ("dns",) else NOTHING

    def _below(self, name: Name) -> Name | None:
        """The labels before the domain, or None."""
        at = len(name) - len(self.domain)
        return name[:at] if at >= 0 and name[at:] == self.domain else None

    def _records(self, name: Name, kind: int, found: Sequence[tuple[int, message.Data]]) -> Reply:
        """Those of the type asked for; no data when there are only others."""
        chosen = (Record(name, each, TTL, data) for each, data in found if kind in (each, Type.ANY))
        return Reply(Code.NOERROR, tuple(chosen))

    def _pod(self, name: Name, labels: Name, kind: int) -> Reply:
        """`10-244-0-5.NAMESPACE.pod`: the address is in the name."""
        if len(labels) < 2:
            return NODATA
        ip = _address(labels[0].replace("-", ".")) if len(labels) == 2 else None
        return self._records(name, kind, [(Type.A, message.a(str(ip)))]) if ip else NOTHING

    def _in_services(self, name: Name, labels: Name, kind: int) -> Reply:
        """Everything under `svc`."""
        if len(labels) < 2:
            known = not labels or self._catalog.has_namespace(labels[0])
            return NODATA if known else NOTHING
        *front, service_name, namespace = labels
        service = self._catalog.service(namespace, service_name)
        if service is None:
            return NOTHING
        spec = service.get("spec") or {}
        if spec.get("type") == "ExternalName":
            return NOTHING if front else self._external(name, spec, kind)
        if spec.get("clusterIP") == _HEADLESS:
            return self._headless(name, front, service, kind)
        return self._cluster_ip(name, front, service, kind)

    def _external(self, name: Name, spec: Object, kind: int) -> Reply:
        target = message.name_of(spec.get("externalName") or "")
        if not target or not message.is_writable(target):
            return NODATA
        first = Record(name, Type.CNAME, TTL, message.pointer(target))
        if kind in (Type.CNAME, Type.ANY):
            return Reply(Code.NOERROR, (first,))
        return Reply(Code.NOERROR, (first,), chase=target)

    def _cluster_ip(self, name: Name, front: Sequence[str], service: Object, kind: int) -> Reply:
        ips = _cluster_ips(service)
        if not ips:
            return NOTHING
        host = self._service_name(service)
        ports = [
            (port.get("name") or "", (port.get("protocol") or "TCP").lower(), int(port["port"]))
            for port in (service["spec"].get("ports") or ())
        ]
        addresses = [(Type.A, message.a(ip)) for ip in ips]
        if not front:
            found = [*addresses, *((Type.SRV, message.srv(0, 100, number, host)) for _, _, number in ports)]
        else:
            wanted = _port_labels(front)
            if wanted is None:
                return NOTHING
            if len(front) == 1:
                return NODATA if any(protocol == wanted[1] for _, protocol, _ in ports) else NOTHING
            matching = [number for *named, number in ports if tuple(named) == wanted]
            if not matching:
                return NOTHING
            found = [(Type.SRV, message.srv(0, 100, number, host)) for number in matching]
        reply = self._records(name, kind, found)
        return self._with_targets(reply, kind, [Record(host, Type.A, TTL, data) for _, data in addresses])

    def _headless(self, name: Name, front: Sequence[str], service: Object, kind: int) -> Reply:
        known = list(self._addresses(service))
        wanted = _port_labels(front)
        if wanted is not None:
            protocol = [each for each in known if each.port and each.protocol == wanted[1]]
            if len(front) == 1:
                return NODATA if protocol else NOTHING
            known = [each for each in protocol if each.port_name == wanted[0]]
        elif front:
            known = [each for each in known if len(front) == 1 and each.host == front[0]]
        if not known:
            return NOTHING
        base = self._service_name(service)
        found: dict[tuple[int, message.Data], None] = {}
        targets: dict[Record, None] = {}
        if wanted is None:
            found |= {(Type.A, message.a(each.ip)): None for each in known}
        with_port = [each for each in known if each.port]
        weight = max(1, 100 // len(with_port)) if with_port else 0
        for each in with_port:
            target = (each.host, *base)
            found[Type.SRV, message.srv(0, weight, each.port, target)] = None
            targets[Record(target, Type.A, TTL, message.a(each.ip))] = None
        return self._with_targets(self._records(name, kind, list(found)), kind, list(targets))

    def _with_targets(self, reply: Reply, kind: int, targets: Sequence[Record]) -> Reply:
        return Reply(reply.code, reply.answers, tuple(targets)) if kind == Type.SRV and reply.answers else reply

    def _addresses(self, service: Object) -> Iterator[_Address]:
        """The ready endpoints of a headless Service, once for each port."""
        meta = service["metadata"]
        always = (service.get("spec") or {}).get("publishNotReadyAddresses")
        for found in self._catalog.slices(meta.get("namespace") or "", meta["name"]):
            if found.get("addressType") != "IPv4":
                continue
            ports = [port for port in found.get("ports") or () if port.get("port")] or [{}]
            for endpoint in found.get("endpoints") or ():
                ready = (endpoint.get("conditions") or {}).get("ready") is not False
                for ip in (endpoint.get("addresses") or ())[:1]:
                    if not (ready or always) or _address(ip) is None:
                        continue
                    host = _host(endpoint, ip)
                    for port in ports:
                        protocol = (port.get("protocol") or "TCP").lower()
                        yield _Address(ip, host, int(port.get("port") or 0), port.get("name") or "", protocol)

    def _service_name(self, service: Object) -> Name:
        meta = service["metadata"]
        return meta["name"], meta.get("namespace") or "", "svc", *self.domain

    def _reverse(self, name: Name, plain: Name, kind: int) -> Reply:
        ip = str(_reversed(plain))
        hosts = [self._service_name(service) for service in self._catalog.services_at(ip)]
        if not hosts:
            hosts = sorted(set(self._endpoint_names(ip)))
        if not hosts:
            return NOTHING
        return self._records(name, kind, [(Type.PTR, message.pointer(host)) for host in hosts])

    def _endpoint_names(self, ip: str) -> Iterator[Name]:
        """Names of an address in headless Services."""
        for found in self._catalog.slices_at(ip):
            meta = found["metadata"]
            owner = (meta.get("labels") or {}).get("kubernetes.io/service-name", "")
            service = self._catalog.service(meta.get("namespace") or "", owner)
            if service is None or (service.get("spec") or {}).get("clusterIP") != _HEADLESS:
                continue
            for each in self._addresses(service):
                if each.ip == ip:
                    yield each.host, *self._service_name(service)


def _host(endpoint: Object, ip: str) -> str:
    """The endpoint's host name, else its address with dashes."""
    return (endpoint.get("hostname") or ip.replace(".", "-")).lower()


def _port_labels(front: Sequence[str]) -> tuple[str, str] | None:
    """(port name, protocol) of `_name._protocol`, or ("", protocol) of `_protocol`; None for other labels."""
    if not front or len(front) > 2 or not all(label.startswith("_") for label in front):
        return None
    return (front[0][1:] if len(front) == 2 else "", front[-1][1:])


def _cluster_ips(service: Object) -> list[str]:
    spec = service.get("spec") or {}
    return [ip for ip in spec.get("clusterIPs") or [spec.get("clusterIP") or ""] if _address(ip) is not None]


def _address(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text)
    except AddressValueError:
        return None


def _reversed(name: Name) -> IPv4Address | None:
    """The address that `4.3.2.1.in-addr.arpa` stands for."""
    if len(name) != 6 or name[4:] != _REVERSE:
        return None
    return _address(".".join(reversed(name[:4])))


__all__ = ["NODATA", "NOTHING", "TTL", "Catalog", "Records", "Reply"]
