from __future__ import annotations

from typing import Any

import pytest

from steersman.proxy.model import ANY, Frontend, HostPort, Masquerade, Where, frontends, host_port_frontends
from tests.proxy.objects import Object, endpoint, service, slice_of

HERE = Where("here", "zone-a")


def found(svc: Object, *slices: Object, where: Where = HERE) -> dict[tuple[str, int, bool], Frontend]:
    return {(each.ip, each.port, each.outside): each for each in frontends(svc, slices, where)}


def ips(frontend: Frontend) -> list[str]:
    return [backend.ip for backend in frontend.backends]


def test_a_cluster_ip_leads_to_the_ready_endpoints_of_all_slices() -> None:
    only = found(
        service(),
        slice_of(
            "web", endpoint("10.244.0.5"), endpoint("10.244.1.6", node="there"), endpoint("10.244.1.7", ready=False)
        ),
        slice_of("web", endpoint("10.244.1.6", node="there"), endpoint("10.244.2.1", node="far"), suffix="b"),
    )
    frontend = only.pop(("10.96.0.7", 80, False))
    assert not only
    assert ips(frontend) == ["10.244.0.5", "10.244.1.6", "10.244.2.1"]
    assert [backend.local for backend in frontend.backends] == [True, False, False]
    assert frontend.backends[0].port == 8080
    assert frontend.masquerade is Masquerade.CLUSTER


@pytest.mark.parametrize(
    "svc",
    [
        service(ip="None"),
        service(ip=""),
        service(type="ExternalName", ip="10.0.0.1"),
        {**service(), "metadata": {"name": "web", "labels": {"service.kubernetes.io/service-proxy-name": "x"}}},
        service(ip="fd00::1"),
        {"metadata": {"name": "empty"}},
    ],
)
def test_what_is_not_for_a_proxy_is_left_alone(svc: Object) -> None:
    assert not found(svc, slice_of("web", endpoint("10.244.0.5")))


def test_ports_are_matched_by_name_and_protocol() -> None:
    svc = service(
        ports=[
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
            {"name": "sctp", "port": 9, "protocol": "SCTP"},
        ]
    )
    got = frontends(
        svc,
        [
            slice_of("web", endpoint("10.244.0.5"), port=5353, protocol="UDP", port_name="dns"),
            slice_of("web", endpoint("10.244.0.6"), port=5300, port_name="dns-tcp", suffix="b"),
            slice_of("web", endpoint("10.244.0.7"), port=99, port_name="sctp", suffix="c"),
        ],
        HERE,
    )
    assert [(each.protocol, [b.ip for b in each.backends]) for each in got] == [
        ("udp", ["10.244.0.5"]),
        ("tcp", ["10.244.0.6"]),
        ("sctp", []),
    ]


def test_node_ports_external_addresses_and_balancers() -> None:
    svc = service(
        type="LoadBalancer",
        externalIPs=["192.0.2.1", "bad"],
        loadBalancerSourceRanges=["203.0.113.0/24 ", "nonsense"],
        ports=[{"port": 80, "nodePort": 30080}],
        sessionAffinity="ClientIP",
        sessionAffinityConfig={"clientIP": {"timeoutSeconds": 60}},
    )
    svc["status"] = {"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}, {"ip": "198.51.100.2", "ipMode": "Proxy"}]}}
    got = found(svc, slice_of("web", endpoint("10.244.1.6", node="there")))
    assert set(got) == {
        ("10.96.0.7", 80, False),
        ("192.0.2.1", 80, False),
        ("198.51.100.1", 80, False),
        (ANY, 30080, False),
    }
    assert all(each.affinity == 60 for each in got.values())
    assert got["198.51.100.1", 80, False].sources == ("203.0.113.0/24",)
    assert got["192.0.2.1", 80, False].sources == ()
    assert got[ANY, 30080, False].masquerade is Masquerade.ALWAYS


def test_external_policy_local_keeps_the_client_and_stays_here() -> None:
    svc = service(type="NodePort", externalTrafficPolicy="Local", ports=[{"port": 80, "nodePort": 30080}])
    both = slice_of("web", endpoint("10.244.0.5"), endpoint("10.244.1.6", node="there"))
    got = found(svc, both)
    assert ips(got[ANY, 30080, True]) == ["10.244.0.5"]
    assert got[ANY, 30080, True].masquerade is Masquerade.NEVER
    assert ips(got[ANY, 30080, False]) == ["10.244.0.5", "10.244.1.6"]
    elsewhere = found(svc, both, where=Where("nowhere"))
    assert elsewhere[ANY, 30080, True].backends == ()


def test_internal_policy_local() -> None:
    both = slice_of("web", endpoint("10.244.0.5"), endpoint("10.244.1.6", node="there"))
    got = found(service(internalTrafficPolicy="Local"), both)
    assert ips(got["10.96.0.7", 80, False]) == ["10.244.0.5"]


def test_ending_endpoints_serve_when_nothing_else_does() -> None:
    ending = endpoint("10.244.0.5", ready=False, conditions={"serving": True, "terminating": True})
    dead = endpoint("10.244.0.6", ready=False, conditions={"serving": False, "terminating": True})
    alive = endpoint("10.244.1.6", node="there")
    key = ("10.96.0.7", 80, False)
    assert ips(found(service(), slice_of("web", ending, dead))[key]) == ["10.244.0.5"]
    assert ips(found(service(), slice_of("web", ending, alive))[key]) == ["10.244.1.6"]
    local = service(type="NodePort", externalTrafficPolicy="Local", ports=[{"port": 80, "nodePort": 30080}])
    assert ips(found(local, slice_of("web", ending, alive))[ANY, 30080, True]) == ["10.244.0.5"]


@pytest.mark.parametrize(
    ("hints", "chosen"),
    [
        ([{"forZones": [{"name": "zone-a"}]}, {"forZones": [{"name": "zone-b"}]}], ["10.244.0.5"]),
        ([{"forZones": [{"name": "zone-b"}]}, {"forZones": [{"name": "zone-b"}]}], ["10.244.0.5", "10.244.1.6"]),
        ([{"forZones": [{"name": "zone-a"}]}, {}], ["10.244.0.5", "10.244.1.6"]),
        ([{"forNodes": [{"name": "there"}]}, {"forNodes": [{"name": "here"}]}], ["10.244.1.6"]),
    ],
)
def test_topology_hints(hints: list[dict[str, Any]], chosen: list[str]) -> None:
    made = slice_of("web", endpoint("10.244.0.5", hints=hints[0]), endpoint("10.244.1.6", node="there", hints=hints[1]))
    assert ips(found(service(), made)["10.96.0.7", 80, False]) == chosen


def test_odd_slices_are_not_believed() -> None:
    odd = slice_of(
        "web",
        endpoint("not an address"),
        {"addresses": []},
        {"addresses": ["fd00::1"]},
        {"addresses": ["10.244.0.9"]},
    )
    v6 = slice_of("web", endpoint("10.244.0.8"), suffix="b", addressType="IPv6")
    portless = slice_of("web", endpoint("10.244.0.7"), suffix="c", ports=[{"name": ""}])
    assert ips(found(service(), odd, v6, portless)["10.96.0.7", 80, False]) == ["10.244.0.9"]


def test_host_ports() -> None:
    got = host_port_frontends(
        [HostPort("0.0.0.0", "TCP", 80, "10.244.0.5", 8080), HostPort("10.1.1.1", "UDP", 53, "10.244.0.5", 53)]
    )
    assert [(each.ip, each.protocol, each.port) for each in got] == [(ANY, "tcp", 80), ("10.1.1.1", "udp", 53)]
    assert all(each.masquerade is Masquerade.LOOPBACK for each in got)
