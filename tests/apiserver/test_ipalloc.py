"""Addresses and node ports of Services, against the real API server in process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

import msgspec
import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import SERVICES, Object
from steersman.apiserver.ipalloc import Allocator, Claims
from steersman.testing.cluster import ApiCluster

NETWORK = IPv4Network("10.96.0.0/28")  # 14 addresses
PORTS = (30000, 30009)


@pytest.fixture
async def cluster() -> AsyncIterator[ApiCluster]:
    async with ApiCluster() as made:
        await Allocator(made.server, NETWORK, PORTS).attach()
        yield made


@pytest.fixture
async def dual() -> AsyncIterator[ApiCluster]:
    async with ApiCluster() as made:
        await Allocator(made.server, NETWORK, PORTS, IPv6Network("fd00::/112")).attach()
        yield made


def service(name: str = "s", ports: Any = 80, **spec: Any) -> Object:
    listed = ports if isinstance(ports, list) else [{"port": ports}]
    return {"metadata": {"name": name}, "spec": {"ports": listed, **spec}}


async def create(cluster: ApiCluster, *args: Any, **spec: Any) -> Object:
    made = await cluster.client.create(SERVICES, service(*args, **spec), "default")
    return made["spec"]


async def refused(call: Any) -> str:
    with pytest.raises(ApiError) as error:
        await call
    return error.value.message


async def test_an_address_of_the_range(cluster: ApiCluster) -> None:
    spec = await create(cluster, selector={"a": "b"})
    assert ip_address(spec["clusterIP"]) in NETWORK
    assert spec["clusterIPs"] == [spec["clusterIP"]]
    assert (spec["ipFamilies"], spec["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")


async def test_every_address_once_and_then_none(cluster: ApiCluster) -> None:
    given = [(await create(cluster, f"s{number}"))["clusterIP"] for number in range(14)]
    assert sorted(map(ip_address, given)) == list(NETWORK.hosts())
    text = 'Internal error occurred: failed to allocate a serviceIP for Service "more": range is full'
    assert await refused(create(cluster, "more")) == text
    await cluster.client.delete(SERVICES, "s3", "default")
    assert (await create(cluster, "more"))["clusterIP"] == given[3]


async def test_writes_at_once_never_get_the_same(cluster: ApiCluster) -> None:
    calls = [create(cluster, f"s{number}", type="NodePort") for number in range(10)]
    made = await asyncio.gather(*calls)
    assert len({spec["clusterIP"] for spec in made}) == 10
    assert {spec["ports"][0]["nodePort"] for spec in made} == set(range(30000, 30010))


async def test_what_a_failed_write_had_is_free_again(cluster: ApiCluster) -> None:
    for _ in range(20):
        await refused(create(cluster, "Bad_Name", type="NodePort"))
    body = msgspec.json.encode(service("dry", type="NodePort"))
    for _ in range(20):
        response, _ = await cluster.client.raw("POST", f"{SERVICES.path('default')}?dryRun=All", body)
        assert response.status == 201
    for number in range(10):
        await create(cluster, f"s{number}", type="NodePort")


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (
            {"clusterIP": "10.96.0.5"},
            'spec.clusterIPs: Invalid value: ["10.96.0.5"]: failed to allocate IP 10.96.0.5: '
            "provided IP is already allocated",
        ),
        (
            {"clusterIP": "10.97.0.5"},
            'spec.clusterIPs: Invalid value: ["10.97.0.5"]: failed to allocate IP 10.97.0.5: '
            "the provided network does not match the current range",
        ),
        ({"clusterIP": "fd00::5"}, 'spec.clusterIPs[0]: Invalid value: ["fd00::5"]: IPv6 is not configured'),
        ({"ipFamilies": ["IPv6"]}, 'spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster'),
        (
            {"ipFamilyPolicy": "RequireDualStack"},
            'spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack',
        ),
        (
            {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "SingleStack"},
            "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified",
        ),
        (
            {"type": "NodePort", "ports": [{"port": 80, "nodePort": 29999}]},
            "spec.ports[0].nodePort: Invalid value: 29999: provided port is not in the valid range. "
            "The range of valid ports is 30000-30009",
        ),
        (
            {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30005}]},
            "spec.ports[0].nodePort: Invalid value: 30005: provided port is already allocated",
        ),
        (
            {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30005, "protocol": "UDP"}]},
            "spec.ports[0].nodePort: Invalid value: 30005: provided port is already allocated",
        ),
        ({"clusterIP": "nonsense"}, "spec.clusterIPs[0]: Invalid value"),
    ],
)
async def test_what_cannot_be_had(cluster: ApiCluster, spec: Object, text: str) -> None:
    await create(cluster, "first", [{"port": 80, "nodePort": 30005}], clusterIP="10.96.0.5", type="NodePort")
    ports = spec.pop("ports", 80)
    assert text in await refused(create(cluster, "second", ports, **spec))


async def test_node_ports(cluster: ApiCluster) -> None:
    ports = [{"name": "t", "port": 53, "protocol": "TCP"}, {"name": "u", "port": 53, "protocol": "UDP"}]
    spec = await create(cluster, "dns", ports, type="NodePort")
    assert spec["ports"][0]["nodePort"] == spec["ports"][1]["nodePort"]
    ports = [
        {"name": "t", "port": 53, "protocol": "TCP"},
        {"name": "u", "port": 53, "protocol": "UDP", "nodePort": 30001},
    ]
    spec = await create(cluster, "chosen", ports, type="NodePort")
    assert [port["nodePort"] for port in spec["ports"]] == [30001, 30001]
    spec = await create(cluster, "none", type="LoadBalancer", allocateLoadBalancerNodePorts=False)
    assert "nodePort" not in spec["ports"][0]
    spec = await create(cluster, "local", type="LoadBalancer", externalTrafficPolicy="Local")
    assert spec["healthCheckNodePort"] != spec["ports"][0]["nodePort"]


async def test_a_change_of_type_takes_and_gives_back(cluster: ApiCluster) -> None:
    await create(cluster)
    patch = cluster.client.patch
    ported = await patch(SERVICES, "s", "default", {"spec": {"type": "NodePort"}})
    port = ported["spec"]["ports"][0]["nodePort"]
    again = await patch(SERVICES, "s", "default", {"metadata": {"labels": {"a": "b"}}})
    assert again["spec"]["ports"][0]["nodePort"] == port
    plain = await patch(SERVICES, "s", "default", {"spec": {"type": "ClusterIP"}})
    assert "nodePort" not in plain["spec"]["ports"][0]
    assert (await create(cluster, "t", [{"port": 80, "nodePort": port}], type="NodePort"))["ports"][0][
        "nodePort"
    ] == port
    named = {"spec": {"type": "ExternalName", "externalName": "a.b", "clusterIP": None, "clusterIPs": None}}
    await patch(SERVICES, "s", "default", named)
    address = plain["spec"]["clusterIP"]
    assert (await create(cluster, "u", clusterIP=address))["clusterIP"] == address
    back = await patch(SERVICES, "s", "default", {"spec": {"type": "ClusterIP", "externalName": None}})
    assert back["spec"]["clusterIP"] not in ("", address)


async def test_headless(cluster: ApiCluster) -> None:
    spec = await create(cluster, "with", clusterIP="None", selector={"a": "b"})
    assert (spec["clusterIPs"], spec["ipFamilies"], spec["ipFamilyPolicy"]) == (["None"], ["IPv4"], "SingleStack")
    spec = await create(cluster, "without", clusterIP="None")
    assert (spec["ipFamilies"], spec["ipFamilyPolicy"]) == (["IPv4", "IPv6"], "RequireDualStack")


async def test_two_families(dual: ApiCluster) -> None:
    spec = await create(dual, "prefer", ipFamilyPolicy="PreferDualStack")
    assert spec["ipFamilies"] == ["IPv4", "IPv6"]
    assert [ip_address(each).version for each in spec["clusterIPs"]] == [4, 6]
    spec = await create(dual, "six", ipFamilies=["IPv6"])
    assert (ip_address(spec["clusterIP"]).version, spec["ipFamilyPolicy"]) == (6, "SingleStack")
    patch = dual.client.patch
    wider = await patch(SERVICES, "six", "default", {"spec": {"ipFamilyPolicy": "RequireDualStack"}})
    assert [ip_address(each).version for each in wider["spec"]["clusterIPs"]] == [6, 4]
    narrow = {"spec": {"ipFamilies": ["IPv6"], "clusterIPs": spec["clusterIPs"]}}
    text = await refused(patch(SERVICES, "six", "default", narrow))
    assert "must be 'SingleStack' to release the secondary cluster IP" in text
    smaller = await patch(SERVICES, "six", "default", {"spec": {"ipFamilyPolicy": "SingleStack"}})
    assert smaller["spec"]["clusterIPs"] == spec["clusterIPs"]


async def test_what_is_stored_counts_after_a_restart(cluster: ApiCluster) -> None:
    spec = await create(cluster, type="NodePort")
    fresh = Allocator(cluster.server, NETWORK, PORTS)
    extras = cluster.server.services.extras
    for key in ("before_create", "before_update"):
        extras[key][("", "Service")].clear()
    await fresh.attach()
    port = {"port": 80, "nodePort": spec["ports"][0]["nodePort"]}
    assert "already allocated" in await refused(create(cluster, "t", clusterIP=spec["clusterIP"]))
    assert "already allocated" in await refused(create(cluster, "t", [port], type="NodePort"))


def test_promises() -> None:
    claims = Claims()
    undo = claims.promise("a", ["x", 1])
    assert (claims.holder("x"), claims.holder(1), claims.holder("y")) == ("a", "a", "")
    claims.store("a", frozenset({"x"}))
    undo()
    assert (claims.holder("x"), claims.holder(1)) == ("a", "")
    claims.store("a", frozenset({"y"}))
    assert (claims.holder("x"), claims.holder("y")) == ("", "a")
    claims.store("a", frozenset())
    assert claims.holder("y") == ""


async def test_another_address_is_refused_as_a_change_wherever_it_is(cluster: ApiCluster) -> None:
    await create(cluster)
    for wanted in ("10.96.0.7", "192.0.2.1"):
        body = {"spec": {"clusterIP": wanted, "clusterIPs": [wanted]}}
        text = await refused(cluster.client.patch(SERVICES, "s", "default", body, type="merge"))
        assert (
            text == f'Service "s" is invalid: spec.clusterIPs[0]: Invalid value: ["{wanted}"]: may not change once set'
        )
