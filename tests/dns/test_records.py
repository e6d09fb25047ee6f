"""The specification's tables, read from values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dns.message
import pytest

from steersman.dns import message
from steersman.dns.message import Code, Query, Type
from steersman.dns.records import Records

Object = dict[str, Any]


class Listed:
    """A catalog of two lists."""

    def __init__(self, services: Sequence[Object], slices: Sequence[Object]) -> None:
        self._services, self._slices = services, slices

    def service(self, namespace: str, name: str) -> Object | None:
        wanted = {"namespace": namespace, "name": name}
        return next((each for each in self._services if each["metadata"] == wanted), None)

    def has_namespace(self, namespace: str) -> bool:
        return any(each["metadata"]["namespace"] == namespace for each in self._services)

    def slices(self, namespace: str, service: str) -> list[Object]:
        return [
            each
            for each in self._slices
            if each["metadata"]["namespace"] == namespace
            and each["metadata"]["labels"]["kubernetes.io/service-name"] == service
        ]

    def services_at(self, ip: str) -> list[Object]:
        return [each for each in self._services if each["spec"].get("clusterIP") == ip]

    def slices_at(self, ip: str) -> list[Object]:
        return [each for each in self._slices if any(ip in found["addresses"] for found in each["endpoints"])]


def service(name: str, ip: str, *ports: Object, **spec: Any) -> Object:
    return {
        "metadata": {"namespace": "ns", "name": name},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": list(ports), **spec},
    }


def slice_of(name: str, *endpoints: Object, ports: Sequence[Object] = (), **more: Any) -> Object:
    return {
        "metadata": {"namespace": "ns", "name": f"{name}-a", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": list(ports),
        **more,
    }


HTTP = {"name": "http", "port": 80, "protocol": "TCP"}
DNS = {"name": "dns", "port": 53, "protocol": "UDP"}
RECORDS = Records(
    Listed(
        [
            service("web", "10.96.0.7", HTTP, DNS),
            service("db", "None", HTTP),
            service("all", "None", publishNotReadyAddresses=True),
            service("idle", "None"),
            service("out", "", type="ExternalName", externalName="www.example.com"),
            service("loop", "", type="ExternalName", externalName="web.ns.svc.cluster.local."),
            service("bad", "", type="ExternalName", externalName="x" * 64),
            service("pending", ""),
        ],
        [
            slice_of("web", {"addresses": ["10.244.0.9"]}, ports=[{"name": "http", "port": 8080}]),
            slice_of(
                "db",
                {"addresses": ["10.244.0.5"], "hostname": "db-0", "conditions": {"ready": True}},
                {"addresses": ["10.244.0.6"]},
                {"addresses": ["10.244.0.7"], "hostname": "db-2", "conditions": {"ready": False}},
                {"addresses": ["nonsense"]},
                {"addresses": []},
                ports=[{"name": "http", "port": 8080, "protocol": "TCP"}],
            ),
            slice_of("db", {"addresses": ["fd00::1"]}, addressType="IPv6"),
            slice_of("all", {"addresses": ["10.244.0.8"], "conditions": {"ready": False}}),
        ],
    ),
    domain="cluster.local",
    networks=["10.96.0.0/16", "10.244.0.0/16"],
)


def ask(name: str, kind: Type) -> tuple[str, list[str]]:
    """(code, records) as another library reads the bytes that we would send."""
    query = Query(7, message.name_of(name), kind)
    reply = RECORDS.reply(query.name, kind)
    authority = [] if reply.answers else [RECORDS.authority(query.name)]
    wire = message.answer(query, reply.code, reply.answers, authority, reply.additional)
    read = dns.message.from_wire(wire)
    assert bool(read.authority) != bool(read.answer), "a negative answer says for how long"
    texts = sorted(item.to_text() for rrset in read.answer for item in rrset)
    texts += sorted(f"+{rrset.name} {item.to_text()}" for rrset in read.additional for item in rrset)
    return Code(read.rcode()).name, texts


OK, NO = "NOERROR", "NXDOMAIN"
A, AAAA, SRV, PTR, CNAME, TXT, NS, SOA = (
    Type.A, Type.AAAA, Type.SRV, Type.PTR, Type.CNAME, Type.TXT, Type.NS, Type.SOA,
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind", "code", "records"),
    [
        ("dns-version.cluster.local", TXT, OK, ['"1.1.0"']),
        ("dns-version.cluster.local", A, OK, []),
        ("web.ns.svc.cluster.local", A, OK, ["10.96.0.7"]),
        ("WEB.ns.SVC.cluster.LOCAL", A, OK, ["10.96.0.7"]),
        ("web.ns.svc.cluster.local", AAAA, OK, []),
        ("web.other.svc.cluster.local", A, NO, []),
        ("none.ns.svc.cluster.local", AAAA, NO, []),
        ("pending.ns.svc.cluster.local", A, NO, []),
        ("x.web.ns.svc.cluster.local", A, NO, []),
        (
            "_http._tcp.web.ns.svc.cluster.local",
            SRV,
            OK,
            ["0 100 80 web.ns.svc.cluster.local.", "+web.ns.svc.cluster.local. 10.96.0.7"],
        ),
        ("_http._tcp.web.ns.svc.cluster.local", A, OK, []),
        ("_http._udp.web.ns.svc.cluster.local", SRV, NO, []),
        ("_tcp.web.ns.svc.cluster.local", SRV, OK, []),
        ("_sctp.web.ns.svc.cluster.local", SRV, NO, []),
        ("db.ns.svc.cluster.local", A, OK, ["10.244.0.5", "10.244.0.6"]),
        ("db.ns.svc.cluster.local", AAAA, OK, []),
        ("db-0.db.ns.svc.cluster.local", A, OK, ["10.244.0.5"]),
        ("10-244-0-6.db.ns.svc.cluster.local", A, OK, ["10.244.0.6"]),
        ("db-2.db.ns.svc.cluster.local", A, NO, []),
        ("x.db-0.db.ns.svc.cluster.local", A, NO, []),
        (
            "_http._tcp.db.ns.svc.cluster.local",
            SRV,
            OK,
            [
                "0 50 8080 10-244-0-6.db.ns.svc.cluster.local.",
                "0 50 8080 db-0.db.ns.svc.cluster.local.",
                "+10-244-0-6.db.ns.svc.cluster.local. 10.244.0.6",
                "+db-0.db.ns.svc.cluster.local. 10.244.0.5",
            ],
        ),
        ("_other._tcp.db.ns.svc.cluster.local", SRV, NO, []),
        ("_tcp.db.ns.svc.cluster.local", SRV, OK, []),
        ("all.ns.svc.cluster.local", A, OK, ["10.244.0.8"]),
        ("idle.ns.svc.cluster.local", A, NO, []),
        ("out.ns.svc.cluster.local", CNAME, OK, ["www.example.com."]),
        ("out.ns.svc.cluster.local", A, OK, ["www.example.com."]),
        ("x.out.ns.svc.cluster.local", A, NO, []),
        ("bad.ns.svc.cluster.local", A, OK, []),
        ("10-244-0-5.any.pod.cluster.local", A, OK, ["10.244.0.5"]),
        ("10-244-0-5.any.pod.cluster.local", AAAA, OK, []),
        ("10-244-0-500.any.pod.cluster.local", A, NO, []),
        ("x.10-244-0-5.any.pod.cluster.local", A, NO, []),
        ("ns.svc.cluster.local", A, OK, []),
        ("other.svc.cluster.local", A, NO, []),
        ("svc.cluster.local", A, OK, []),
        ("pod.cluster.local", A, OK, []),
        ("cluster.local", NS, OK, ["ns.dns.cluster.local."]),
        ("cluster.local", SOA, OK, ["ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"]),
        ("cluster.local", A, OK, []),
        ("nonsense.cluster.local", A, NO, []),
        ("7.0.96.10.in-addr.arpa", PTR, OK, ["web.ns.svc.cluster.local."]),
        ("5.0.244.10.in-addr.arpa", PTR, OK, ["db-0.db.ns.svc.cluster.local."]),
        ("7.0.96.10.in-addr.arpa", A, OK, []),
        ("9.0.244.10.in-addr.arpa", PTR, NO, []),
        ("1.1.96.10.in-addr.arpa", PTR, NO, []),
    ],
)
def test_the_specification(name: str, kind: Type, code: str, records: list[str]) -> None:
    assert ask(name, kind) == (code, records)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("cluster.local", True),
        ("a.Cluster.Local", True),
        ("local", False),
        ("xcluster.local", False),
        ("", False),
        ("1.0.96.10.in-addr.arpa", True),
        ("1.0.0.127.in-addr.arpa", False),
        ("0.96.10.in-addr.arpa", False),
        ("in-addr.arpa", False),
    ],
)
def test_which_names_are_ours(name: str, ours: bool) -> None:
    assert RECORDS.owns(message.name_of(name)) is ours


def test_an_external_name_says_where_to_go_on() -> None:
    reply = RECORDS.reply(message.name_of("loop.ns.svc.cluster.local"), Type.A)
    assert reply.chase == ("web", "ns", "svc", "cluster", "local")
    assert RECORDS.reply(message.name_of("loop.ns.svc.cluster.local"), Type.CNAME).chase is None


def test_a_domain_must_be_one() -> None:
    with pytest.raises(ValueError, match="invalid cluster domain"):
        Records(Listed([], []), domain="x" * 64, networks=[])
    with pytest.raises(ValueError, match="invalid cluster domain"):
        Records(Listed([], []), domain=".", networks=[])
