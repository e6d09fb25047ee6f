"""Services: defaults by type, rules, and what one type gives up when it becomes another."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from steersman.api.resource import Object
from tests.api.kinds import stage


def service(**spec: Any) -> Object:
    obj = stage.example("Service")
    for key, value in spec.items():
        stage.put(obj, f"spec.{key}", value)
    return obj


def test_a_cluster_ip_service_is_filled_in() -> None:
    obj = service(ports=[{"port": 80}, {"name": "b", "port": 81, "targetPort": "web"}])
    obj["spec"]["ports"][0]["name"] = "a"
    assert stage.create(obj) == []
    assert {key: obj["spec"][key] for key in ("type", "sessionAffinity", "internalTrafficPolicy", "ports")} == {
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster",
        "ports": [
            {"name": "a", "port": 80, "protocol": "TCP", "targetPort": 80},
            {"name": "b", "port": 81, "protocol": "TCP", "targetPort": "web"},
        ],
    }
    assert obj["status"] == {"loadBalancer": {}}


@pytest.mark.parametrize(
    ("spec", "filled"),
    [
        ({"type": "NodePort"}, {"externalTrafficPolicy": "Cluster"}),
        ({"type": "LoadBalancer"}, {"externalTrafficPolicy": "Cluster", "allocateLoadBalancerNodePorts": True}),
        ({"sessionAffinity": "ClientIP"}, {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}}}),
    ],
)
def test_types_bring_their_own(spec: dict[str, Any], filled: dict[str, Any]) -> None:
    obj = service(**spec)
    assert stage.create(obj) == []
    assert {key: obj["spec"].get(key) for key in filled} == filled


@pytest.mark.parametrize(
    "spec",
    [
        {"ports": [{"port": 53, "protocol": "UDP", "name": "u"}, {"port": 53, "name": "t"}]},
        {"clusterIP": "None", "clusterIPs": ["None"], "ports": None},
        {"externalIPs": ["203.0.113.5"]},
        {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"]},
        {
            "type": "ExternalName",
            "externalName": "a.example",
            "clusterIP": None,
            "clusterIPs": None,
            "ipFamilies": None,
            "ipFamilyPolicy": None,
        },
    ],
)
def test_what_is_fine(spec: dict[str, Any]) -> None:
    assert stage.create(service(**spec)) == []


@pytest.mark.parametrize(
    ("spec", "complaints"),
    [
        ({"ports": None}, ["spec.ports: Required value"]),
        (
            {"ports": [{"port": 0}]},
            [
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
            ],
        ),
        ({"ports": [{"port": 1}, {"port": 2, "name": "b"}]}, ["spec.ports[0].name: Required value"]),
        (
            {"ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "a"}]},
            ['spec.ports[1].name: Duplicate value: "a"'],
        ),
        (
            {"ports": [{"port": 1, "protocol": "ICMP"}]},
            ['spec.ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"'],
        ),
        (
            {"ports": [{"port": 1, "nodePort": 30000}]},
            ["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
        ),
        (
            {"type": "Odd"},
            [
                'spec.type: Unsupported value: "Odd": supported values: "ClusterIP", "ExternalName", '
                '"LoadBalancer", "NodePort"'
            ],
        ),
        (
            {"sessionAffinity": "Odd"},
            ['spec.sessionAffinity: Unsupported value: "Odd": supported values: "ClientIP", "None"'],
        ),
        (
            {"externalTrafficPolicy": "Local"},
            ['spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services'],
        ),
        (
            {"externalIPs": ["127.0.0.1"]},
            [
                'spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range '
                "(127.0.0.0/8, ::1/128)"
            ],
        ),
        (
            {"selector": {"a b": "c"}},
            [
                "spec.selector: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or "
                "'.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or "
                "'123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
            ],
        ),
    ],
)
def test_what_is_refused(spec: dict[str, Any], complaints: list[str]) -> None:
    assert stage.create(service(**spec)) == complaints


@pytest.mark.parametrize(
    ("name", "fine"), [("1a", True), ("a-1", True), ("A", False), ("a.b", False), ("a" * 64, False)]
)
def test_names_are_labels(name: str, fine: bool) -> None:
    obj = service()
    obj["metadata"]["name"] = name
    assert (stage.create(obj) == []) is fine


def test_the_address_is_for_good() -> None:
    old = stage.stored(service())
    new = copy.deepcopy(old)
    new["spec"]["clusterIP"] = "10.96.0.9"
    found = stage.update(new, old)
    assert found == ['spec.clusterIPs[0]: Invalid value: ["10.96.0.9"]: may not change once set']


def test_an_update_may_leave_the_addresses_out() -> None:
    old = stage.stored(service())
    new = copy.deepcopy(old)
    for key in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        del new["spec"][key]
    assert stage.update(new, old) == []
    assert new["spec"]["clusterIP"] == "10.96.0.7"
    assert new["spec"]["clusterIPs"] == ["10.96.0.7"]


def test_node_ports_stay_with_their_ports() -> None:
    old = stage.stored(service(type="NodePort", ports=[{"port": 80, "nodePort": 30080}]))
    new = copy.deepcopy(old)
    del new["spec"]["ports"][0]["nodePort"]
    assert stage.update(new, old) == []
    assert new["spec"]["ports"][0]["nodePort"] == 30080


def test_node_ports_go_with_the_type() -> None:
    old = stage.stored(service(type="NodePort", ports=[{"port": 80, "nodePort": 30080}]))
    new = copy.deepcopy(old)
    new["spec"]["type"] = "ClusterIP"
    assert stage.update(new, old) == []
    assert "nodePort" not in new["spec"]["ports"][0]
    assert "externalTrafficPolicy" not in new["spec"]


def test_the_balancer_reports_by_the_status() -> None:
    old = stage.stored(service(type="LoadBalancer"))
    new = copy.deepcopy(old)
    new["status"]["loadBalancer"] = {"ingress": [{"ip": "203.0.113.5"}]}
    through_spec = copy.deepcopy(new)
    assert stage.update(through_spec, old) == []
    assert through_spec["status"] == {"loadBalancer": {}}
    assert stage.update(new, old, "status") == []
    assert new["status"]["loadBalancer"]["ingress"][0]["ip"] == "203.0.113.5"
