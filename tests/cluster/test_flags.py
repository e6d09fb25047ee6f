"""Values of the API server's flags: what they mean, and the sentence that refuses the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from steersman.client.cloud import UNINITIALIZED
from steersman.cluster import storage
from steersman.cluster.apiserver import advertised, node_ports, reconciler
from steersman.cluster.node import settings
from steersman.cluster.process import StartFailure
from steersman.cluster.profile import Profile


@pytest.mark.parametrize(("text", "seconds"), [("5m0s", 300.0), ("90s", 90.0), ("1h0m0.5s", 3600.5), ("0", 0.0)])
def test_durations(text: str, seconds: float) -> None:
    assert storage.seconds({"event-ttl": text}, "event-ttl", "1h") == seconds


@pytest.mark.parametrize("text", ["", "5", "5 m", "-1s", "1d", "m", "1.2.3s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(StartFailure, match=r"invalid value for event-ttl: .* is no duration such as 5m0s"):
        storage.seconds({"event-ttl": text}, "event-ttl", "1h")


@pytest.mark.parametrize(
    ("text", "ports"),
    [("30000-32767", (30000, 32767)), ("20000+100", (20000, 20100)), ("8080-8080", (8080, 8080))],
)
def test_node_ports(text: str, ports: tuple[int, int]) -> None:
    assert node_ports({"service-node-port-range": text}) == ports
    assert node_ports({}) == (30000, 32767)


@pytest.mark.parametrize("text", ["", "30000", "0-10", "32767-30000", "60000-70000", "60000+9000", "-1-5", "a-b"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(StartFailure, match="invalid value for service-node-port-range"):
        node_ports({"service-node-port-range": text})


@pytest.mark.parametrize(
    ("nodes", "extra", "address"),
    [
        (1, (), "10.244.0.1"),
        (0, (), "10.244.0.1"),
        (0, ("apiserver.advertise-address=192.0.2.7",), "192.0.2.7"),
    ],
)
def test_what_the_kubernetes_endpoints_say(nodes: int, extra: tuple[str, ...], address: str) -> None:
    assert advertised(Profile("one", Path(), nodes=nodes, extra_config=extra)) == address


@pytest.mark.parametrize("text", ["here", "fd00::7", "192.0.2.7/24"])
def test_an_address_to_advertise_is_an_address(text: str) -> None:
    with pytest.raises(StartFailure, match=f"invalid value for advertise-address: '{text}' is no IPv4 address"):
        advertised(Profile("one", Path(), extra_config=(f"apiserver.advertise-address={text}",)))


def test_how_the_kubernetes_endpoints_are_kept() -> None:
    assert reconciler({}) == ("lease", 1)
    assert reconciler({"endpoint-reconciler-type": "master-count", "apiserver-count": "3"}) == ("master-count", 3)
    with pytest.raises(StartFailure, match="'etcd' is not lease, master-count or none"):
        reconciler({"endpoint-reconciler-type": "etcd"})
    for count in ("0", "-1", "three"):
        with pytest.raises(StartFailure, match=f"--apiserver-count should be a positive number, but value '{count}'"):
            reconciler({"apiserver-count": count})


@pytest.mark.parametrize("value", ["external", ""])
def test_a_node_waits_for_its_cloud(tmp_path: Path, value: str) -> None:
    profile = Profile("one", tmp_path, extra_config=(f"kubelet.cloud-provider={value}",))
    profile.node_directory(0).mkdir(parents=True)
    found = settings(profile, 0)
    assert [taint["key"] for taint in found.taints] == ([UNINITIALIZED] if value else [])
    assert list(found.annotations.values()) == (list(found.addresses) if value else [])
