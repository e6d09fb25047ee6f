"""What NetworkPolicies mean, as nftables text; the kernel's own judgement is in `test_policy_traffic`."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.api.resource import Object
from steersman.proxy import policy
from steersman.proxy.policy import Cluster, Pod, directions, pod_of

WEB = Pod("default", {"app": "web"}, ("10.0.0.2",), {("http", "TCP"): 8080}, here=True)
DB = Pod("default", {"app": "db"}, ("10.0.1.3",), {("sql", "TCP"): 5432})
OTHER = Pod("team", {"app": "web"}, ("10.0.1.4",))
NAMESPACES = {"default": {"team": "a"}, "team": {"team": "b"}}


def made(**spec: Any) -> Object:
    return {"metadata": {"name": "p", "namespace": "default"}, "spec": {"podSelector": {}, **spec}}


def text(*policies: Object, pods: tuple[Pod, ...] = (WEB, DB, OTHER)) -> str:
    return policy.table("t", Cluster(policies, pods, NAMESPACES))


def chain(found: str, direction: str) -> list[str]:
    """The rules of the only chain of a direction."""
    (line,) = [line for line in found.splitlines() if line.startswith(f"chain {direction}_")]
    return line.partition("{ ")[2].removesuffix("; }").split("; ")


def members(found: str, rule: str) -> str:
    """The addresses of the set that a rule names."""
    name = rule.split("@")[1].split()[0]
    (line,) = [line for line in found.splitlines() if line.startswith(f"set {name} ")]
    return line.partition("elements = { ")[2].partition(" }")[0]


def test_without_policies_there_is_no_table() -> None:
    assert text() == "table inet t { }\ndelete table inet t\n"
    assert "chain" not in text(made(podSelector={"matchLabels": {"app": "nobody"}}))


def test_a_policy_without_rules_lets_nothing_in() -> None:
    found = text(made())
    assert chain(found, "ingress") == ["drop"]
    assert "ip daddr vmap @ingress_ip" in found
    assert "10.0.0.2 : jump ingress_" in found
    assert "10.0.1.3 : jump" not in found, "pods of other nodes are others' work"
    assert "received" not in found, "nothing is said about what leaves"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, ["Ingress"]),
        ({"egress": [{}]}, ["Ingress", "Egress"]),
        ({"policyTypes": ["Egress"]}, ["Egress"]),
    ],
)
def test_directions(spec: Object, expected: list[str]) -> None:
    assert list(directions(made(**spec))) == expected


@pytest.mark.parametrize(
    ("peer", "addresses"),
    [
        ({"podSelector": {"matchLabels": {"app": "db"}}}, "10.0.1.3"),
        ({"podSelector": {}}, "10.0.0.2, 10.0.1.3"),
        ({"namespaceSelector": {}}, "10.0.0.2, 10.0.1.3, 10.0.1.4"),
        ({"namespaceSelector": {"matchLabels": {"team": "b"}}}, "10.0.1.4"),
        ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "team"}}}, "10.0.1.4"),
        (
            {"namespaceSelector": {}, "podSelector": {"matchExpressions": [{"key": "app", "operator": "In",
                                                                            "values": ["web"]}]}},
            "10.0.0.2, 10.0.1.4",
        ),
    ],
)  # fmt: skip
def test_peers(peer: Object, addresses: str) -> None:
    for direction, key, field in (("ingress", "from", "saddr"), ("egress", "to", "daddr")):
        found = text(made(policyTypes=[direction.capitalize()], **{direction: [{key: [peer]}]}))
        first, last = chain(found, direction)
        assert last == "drop"
        assert first.startswith(f"ip {field} @peers_")
        assert members(found, first) == addresses


def test_a_peer_that_nobody_is_allows_nothing() -> None:
    rule = {"from": [{"podSelector": {"matchLabels": {"app": "nobody"}}}]}
    assert chain(text(made(ingress=[rule])), "ingress") == ["drop"]


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ({"cidr": "192.0.2.0/24"}, "ip saddr 192.0.2.0/24 return"),
        (
            {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.2.0.0/16"]},
            "ip saddr 10.0.0.0/8 ip saddr != { 10.1.0.0/16, 10.2.0.0/16 } return",
        ),
        ({"cidr": "2001:db8::/32"}, "ip6 saddr 2001:db8::/32 return"),
    ],
)
def test_blocks(block: Object, expected: str) -> None:
    assert chain(text(made(ingress=[{"from": [{"ipBlock": block}]}])), "ingress") == [expected, "drop"]


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        ({"port": 80}, ["meta l4proto tcp th dport 80 return"]),
        ({"port": 53, "protocol": "UDP"}, ["meta l4proto udp th dport 53 return"]),
        ({"protocol": "SCTP"}, ["meta l4proto sctp return"]),
        ({"port": 8000, "endPort": 8100}, ["meta l4proto tcp th dport 8000-8100 return"]),
        ({"port": "http"}, ["meta l4proto tcp th dport 8080 return"]),
        ({"port": "sql"}, []),
    ],
)
def test_ports_in(port: Object, expected: list[str]) -> None:
    assert chain(text(made(ingress=[{"ports": [port]}])), "ingress") == [*expected, "drop"]


def test_a_named_port_means_what_each_peer_says() -> None:
    rule = {"to": [{"podSelector": {"matchLabels": {"app": "db"}}}], "ports": [{"port": "sql"}]}
    first, _ = chain(text(made(policyTypes=["Egress"], egress=[rule])), "egress")
    assert first.endswith("ip daddr 10.0.1.3 meta l4proto tcp th dport 5432 return")


def test_policies_add_up_and_alike_pods_share_a_chain() -> None:
    twin = Pod("default", {"app": "web"}, ("10.0.0.9",), {("http", "TCP"): 8080}, here=True)
    found = text(made(ingress=[{"ports": [{"port": 1}]}]), made(ingress=[{"ports": [{"port": 2}]}]), pods=(WEB, twin))
    rules = chain(found, "ingress")
    assert rules == ["meta l4proto tcp th dport 1 return", "meta l4proto tcp th dport 2 return", "drop"]
    assert found.count(": jump ingress_") == 2


def test_which_pods_count() -> None:
    spec = {"nodeName": "n1", "containers": [{"ports": [{"name": "http", "containerPort": 80}]}]}
    pod = {
        "metadata": {"name": "x", "namespace": "d"},
        "spec": spec,
        "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
    }
    assert pod_of(pod, "n1") == Pod("d", {}, ("10.0.0.1", "fd00::1"), {("http", "TCP"): 80}, here=True)
    assert pod_of({**pod, "spec": {**spec, "hostNetwork": True}}, "n1") is None
    assert pod_of({**pod, "status": {**pod["status"], "phase": "Succeeded"}}, "n1") is None
    assert pod_of({**pod, "status": {}}, "n1") is None


@pytest.mark.parametrize("name", ["", "a b", "x; flush ruleset", "1x"])
def test_a_table_name_is_one_word(name: str) -> None:
    with pytest.raises(ValueError, match="invalid table name"):
        policy.table(name, Cluster((), (), {}))
