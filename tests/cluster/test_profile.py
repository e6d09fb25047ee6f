"""Profiles: names, addresses that never overlap, and files that may be broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steersman.cluster import profile as profiles
from steersman.cluster.profile import ProfileError


@pytest.mark.parametrize("name", ["", "Upper", "a/b", "../up", "-a", "a-", "a b", "x" * 41, "a\n"])
def test_bad_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ProfileError, match="invalid profile name"):
        profiles.create(name, tmp_path)
    assert profiles.names(tmp_path) == []


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Claims of these tests stay out of the machine's."""
    monkeypatch.setattr(profiles, "_CLAIMS", tmp_path / "claims")


def test_homes_of_one_machine_keep_apart(tmp_path: Path) -> None:
    first, second = profiles.create("one", tmp_path / "a"), profiles.create("one", tmp_path / "b")
    assert not first.pod_network.overlaps(second.pod_network)
    profiles.remove(first)
    assert profiles.create("two", tmp_path / "b").index == first.index


def test_profiles_get_addresses_of_their_own(tmp_path: Path) -> None:
    first, second = profiles.create("one", tmp_path), profiles.create("two", tmp_path)
    assert str(first.pod_network) == "10.244.0.0/16"
    assert str(first.service_network) == "10.96.0.0/16"
    assert (first.api_service_address, first.dns_address) == ("10.96.0.1", "10.96.0.10")
    assert not first.pod_network.overlaps(second.pod_network)
    assert not first.service_network.overlaps(second.service_network)
    assert second.node_address(2) == "10.243.2.1"
    assert second.node_name(1) == "two-m02"


def test_no_two_of_a_hundred_profiles_overlap(tmp_path: Path) -> None:
    made = [profiles.Profile("p", tmp_path, index=index) for index in range(100)]
    networks = [network for p in made for network in (p.pod_network, p.service_network)]
    assert not any(a.overlaps(b) for i, a in enumerate(networks) for b in networks[:i])


def test_a_deleted_profile_frees_its_addresses(tmp_path: Path) -> None:
    first = profiles.create("one", tmp_path)
    profiles.create("two", tmp_path)
    profiles.remove(first)
    assert profiles.create("three", tmp_path).index == first.index


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    made = profiles.create("one", tmp_path)
    changed = profiles.change(made, nodes=0, extra_config=("scheduler.scheduler-name=x",), release="1.30")
    assert profiles.load("one", tmp_path) == changed
    assert changed.options("scheduler") == {"scheduler-name": "x"}
    assert profiles.load("other", tmp_path) is None


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", json.dumps({"format": 2}), json.dumps({"format": 1, "name": "one", "surprise": 1}), "\0\xff"],
)
def test_a_broken_file_is_named_and_kept(tmp_path: Path, content: str) -> None:
    path = profiles.create("one", tmp_path).directory / "profile.json"
    path.write_text(content)
    with pytest.raises(ProfileError, match=r"cannot read .*profile\.json.*nothing was changed"):
        profiles.load("one", tmp_path)
    assert path.read_text() == content


def test_one_command_at_a_time(tmp_path: Path) -> None:
    with profiles.locked(tmp_path, "one"), pytest.raises(ProfileError, match="another steer command is working"):
        profiles.locked(tmp_path, "one").__enter__()
    with profiles.locked(tmp_path, "one"):
        assert (tmp_path / "locks" / "one").exists()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("controllers", "not of the form"),
        ("kubelet=5", "not of the form"),
        ("etcd.x=1", "unknown component 'etcd'"),
        ("kubelet.nonsense=1", "kubelet has no setting 'nonsense'"),
        ("kubelet.cloud-provider=mine", "kubelet.cloud-provider is external or empty, not 'mine'"),
        ("scheduler.secure-port=x", "scheduler.secure-port: x must be between 0 and 65535"),
        ("scheduler.secure-port=65536", "scheduler.secure-port: 65536 must be between 0 and 65535"),
        ("scheduler.leader-elect=maybe", "scheduler.leader-elect is true or false, not 'maybe'"),
    ],
)
def test_extra_config_is_checked(text: str, complaint: str) -> None:
    with pytest.raises(ProfileError, match=complaint):
        profiles.check_extra_config(text)


@pytest.mark.parametrize(
    "text",
    [
        "controller-manager.controllers=*,-node-lifecycle-controller",
        "controller-manager.node-eviction-rate=0.5",
        "controller-manager.horizontal-pod-autoscaler-sync-period=5s",
    ],
)
def test_extra_config_as_minikube_spells_it(text: str) -> None:
    assert profiles.check_extra_config(text) == text


def test_services_may_have_a_range_of_their_own_until_the_first_start(tmp_path: Path) -> None:
    made = profiles.create("one", tmp_path)
    asked = ("apiserver.service-cluster-ip-range=10.0.0.0/24",)
    changed = profiles.change(made, extra_config=asked)
    assert (str(changed.service_network), changed.dns_address) == ("10.0.0.0/24", "10.0.0.10")
    changed.pki.mkdir()
    with pytest.raises(profiles.ProfileError, match=r"10\.0\.0\.0/24, which cannot change any more"):
        profiles.change(changed, extra_config=())
    assert profiles.change(changed, extra_config=asked, nodes=2).nodes == 2
    assert profiles.load("one", tmp_path) == profiles.change(changed, nodes=2)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("10.0.0.0/29", "fewer than 16 addresses"),
        ("10.0.0.1/24", "has host bits set"),
        ("10.0.0.0/24,fd00::/112", "Only one '/' permitted"),
        ("", "Address cannot be empty"),
        ("nonsense", "Expected 4 octets"),
    ],
)
def test_ranges_that_are_none(text: str, complaint: str) -> None:
    with pytest.raises(profiles.ProfileError, match=complaint):
        profiles.check_extra_config(f"apiserver.service-cluster-ip-range={text}")


def test_services_cannot_have_addresses_of_pods(tmp_path: Path) -> None:
    made = profiles.create("one", tmp_path)
    with pytest.raises(profiles.ProfileError, match="has addresses of pods"):
        profiles.change(made, extra_config=("apiserver.service-cluster-ip-range=10.244.1.0/24",))
