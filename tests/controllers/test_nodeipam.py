"""Nodes get ranges of pod addresses: no two the same, those of gone nodes again, and a restart forgets nothing."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.api.resource import NODES, Object
from steersman.controllers import run
from steersman.controllers.nodeipam import Book, Ranges, ranges_of

from .conftest import World

ON = {"allocate-node-cidrs": "true"}
SMALL = {**ON, "cluster-cidr": "10.244.0.0/22", "node-cidr-mask-size": "24"}


@pytest.mark.parametrize(
    ("config", "first"),
    [
        ({"cluster-cidr": "10.244.0.0/16"}, ["10.244.0.0/24"]),
        ({"cluster-cidr": "10.244.0.0/16", "node-cidr-mask-size": "26"}, ["10.244.0.0/26"]),
        ({"cluster-cidr": "10.244.0.0/16,fd00:10:244::/56"}, ["10.244.0.0/24", "fd00:10:244::/64"]),
        ({"cluster-cidr": "fd00:10:244::/48", "node-cidr-mask-size-ipv6": "60"}, ["fd00:10:244::/60"]),
        ({"cluster-cidr": "10.0.0.0/8", "service-cluster-ip-range": "10.0.0.0/20"}, ["10.0.16.0/24"]),
        ({"cluster-cidr": "10.96.0.0/20", "service-cluster-ip-range": "10.96.0.0/12"}, None),
    ],
)
def test_the_settings_say_which_range_is_first(config: dict[str, str], first: list[str] | None) -> None:
    given_out = Book(ranges_of(config)).give("a")
    assert (None if given_out is None else [str(each) for each in given_out]) == first


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({}, "Must specify --cluster-cidr"),
        ({"cluster-cidr": "10.0.0.0/24", "node-cidr-mask-size": "20"}, "mask size of cluster CIDR must be less than"),
        ({"cluster-cidr": "10.0.0.0/24", "node-cidr-mask-size": "40"}, "the node CIDR size is too big"),
        ({"cluster-cidr": "fd00::/32"}, "the node CIDR size is too big"),
        ({"cluster-cidr": "10.0.0.0/24", "node-cidr-mask-size": "many"}, "no number of bits"),
        ({"cluster-cidr": "10.0.0.0/24", "node-cidr-mask-size": "-4"}, "no number of bits"),
        ({"cluster-cidr": "10.0.0.0/16,10.1.0.0/16"}, "not configured as dual stack"),
        ({"cluster-cidr": "10.0.0.0/16,fd00::/56,fd01::/56"}, "more than max allowed of 2"),
        ({"cluster-cidr": "10.0.0.0/16,fd00::/56", "node-cidr-mask-size": "24"}, "not allowed with dual-stack"),
        ({"cluster-cidr": "pods"}, "does not appear to be an IPv4 or IPv6 network"),
    ],
)
def test_settings_that_cannot_be(config: dict[str, str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        run.chosen(["node-ipam-controller"], {**ON, **config})
    assert run.chosen(["node-ipam-controller"], config) == []


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=40))
def test_no_range_is_two_nodes(steps: list[tuple[str, bool]]) -> None:
    book, held = Book([Ranges(ip_network("10.0.0.0/22"), 24)]), dict[str, str]()
    for name, comes in steps:
        if not comes:
            book.release(name)
            held.pop(name, None)
        elif (found := book.give(name)) is not None:
            assert held.setdefault(name, str(found[0])) == str(found[0])
        else:
            assert name not in held and len(held) == 4
        assert len(set(held.values())) == len(held)


def test_what_nodes_bring_along_is_not_given_to_others() -> None:
    ranges = Ranges(ip_network("10.0.0.0/22"), 24)
    book = Book([ranges])
    book.hold("wide", [ip_network("10.0.0.0/23")])
    book.hold("narrow", [ip_network("10.0.2.16/28")])
    book.hold("far", [ip_network("192.168.0.0/24")])
    book.hold("other family", [ip_network("fd00::/64")])
    assert book.give("a") == [ip_network("10.0.3.0/24")] and book.give("b") is None
    book.hold("twin", [ip_network("10.0.2.0/24")])
    book.release("narrow")
    assert book.give("b") is None, "its twin is still there"
    book.release("wide")
    assert book.give("b") == [ip_network("10.0.0.0/24")]


async def _ranges(world: World) -> dict[str, str]:
    return {each["metadata"]["name"]: each["spec"].get("podCIDR", "") for each in await world.list(NODES)}


def _node(name: str, cidr: str = "") -> Object:
    return {"metadata": {"name": name}, "spec": {"podCIDR": cidr, "podCIDRs": [cidr]} if cidr else {}}


async def test_nodes_get_ranges_and_leave_them_to_others(world: World) -> None:
    await world.client.create(NODES, _node("own", "10.244.1.0/24"))
    world.start("node-ipam-controller", **SMALL)
    for name in ("a", "b", "c"):
        await world.client.create(NODES, _node(name))
        await world.settle(1)
    found = await _ranges(world)
    assert found == {"own": "10.244.1.0/24", "a": "10.244.0.0/24", "b": "10.244.2.0/24", "c": "10.244.3.0/24"}
    assert (await world.get(NODES, "a"))["spec"]["podCIDRs"] == ["10.244.0.0/24"]

    await world.client.create(NODES, _node("late"))
    await world.settle(1)
    assert ("CIDRNotAvailable", "Node late status is now: CIDRNotAvailable") in await world.events()
    await world.client.delete(NODES, "b")
    await world.settle(60)
    assert (await _ranges(world))["late"] == "10.244.2.0/24"


async def test_a_restart_gives_nothing_out_twice(world: World) -> None:
    world.start("node-ipam-controller", **SMALL)
    await world.client.create(NODES, _node("a"))
    await world.settle(1)
    await world.tasks.close()
    other = World(world.cluster, world.tasks)
    other.start("node-ipam-controller", **SMALL)
    await world.client.create(NODES, _node("b"))
    await world.settle(1)
    assert await _ranges(world) == {"a": "10.244.0.0/24", "b": "10.244.1.0/24"}


async def test_a_lost_answer_gives_the_same_range_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    patch, lost = world.client.patch, [TimeoutError("lost before"), TimeoutError("lost after")]

    async def unsure(*args: object, **kwargs: object) -> Object:
        if len(lost) == 2:
            raise lost.pop()
        done = await patch(*args, **kwargs)  # type: ignore[arg-type]
        if lost:
            raise lost.pop()
        return done

    monkeypatch.setattr(world.client, "patch", unsure)
    world.start("node-ipam-controller", **SMALL)
    for name in ("a", "b"):
        await world.client.create(NODES, _node(name))
    await world.settle(30)
    assert sorted((await _ranges(world)).values()) == ["10.244.0.0/24", "10.244.1.0/24"]


async def test_off_unless_asked_for(world: World) -> None:
    world.start("node-ipam-controller", **{"cluster-cidr": "10.244.0.0/16"})
    await world.client.create(NODES, _node("a"))
    await world.settle()
    assert await _ranges(world) == {"a": ""}
