"""The allocator against one that tries everything, on small inventories; and what it says of odd ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.api.resource import Object
from steersman.scheduler import podinfo
from steersman.scheduler.allocation import result
from steersman.scheduler.allocator import AllocationError, Allocator, InvalidPools, TimedOut
from steersman.scheduler.columns import Columns
from steersman.scheduler.devices import Devices
from steersman.scheduler.framework import PluginError
from steersman.scheduler.plugins import dynamic_resources
from tests.scheduler.test_devices import DRIVER, a_claim, a_class, a_device, a_slice, request

NODE: Object = {"metadata": {"name": "n", "labels": {"zone": "a"}}}


def inventory(*slices: Object, classes: Sequence[Object] = (a_class(),), claims: Sequence[Object] = ()) -> Devices:
    devices = Devices()
    for each in slices:
        devices.set_slice(each["metadata"]["name"], each)
    for each in classes:
        devices.set_class(each["metadata"]["name"], each)
    for each in claims:
        devices.set_claim((each["metadata"]["namespace"], each["metadata"]["name"]), each)
    return devices


def claim(name: str, *requests: Object, **more: Any) -> Object:
    made = a_claim(name, *requests, **more)
    made["metadata"] |= {"namespace": "d", "uid": f"uid-{name}"}
    return made


def search(devices: Devices, *claims: Object, node: Object = NODE) -> Allocator:
    return Allocator(claims, devices.pools(node)[1], devices, devices.classes, node)


def outcome(devices: Devices, *claims: Object, node: Object = NODE) -> list[Object] | None:
    found = search(devices, *claims, node=node)
    if not found.run():
        return None
    name = node["metadata"]["name"]
    return [result(each, found.given[at], found.ways(at), name, lambda: "id") for at, each in enumerate(claims)]


def names(devices: Devices, *claims: Object, node: Object = NODE) -> list[list[str]] | None:
    found = outcome(devices, *claims, node=node)
    return found if found is None else [[one["device"] for one in each["devices"]["results"]] for each in found]


# An oracle -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Thing:
    """A device as the oracle sees it."""

    name: str
    kind: str
    numa: int
    tainted: bool
    taken: bool
    slots: int


@dataclass(frozen=True)
class Wish:
    """One way to satisfy a request; count 0: all that there are."""

    kind: str
    count: int
    tolerates: bool


@dataclass(frozen=True)
class Claim:
    """`attribute`: what all devices have in common, or in which all differ."""

    requests: tuple[tuple[Wish, ...], ...]
    attribute: str


seldom = st.sampled_from((False, False, False, True))
things = st.lists(
    st.builds(
        Thing, st.just(""), st.sampled_from("ab"), st.integers(0, 1), seldom, seldom, st.sampled_from((0, 0, 1, 2))
    ),
    min_size=1,
    max_size=5,
).map(lambda found: [replace(each, name=f"d{at}") for at, each in enumerate(found)])
wishes = st.builds(Wish, st.sampled_from(("a", "b", "")), st.integers(1, 2), st.booleans())
everything = st.builds(Wish, st.sampled_from("ab"), st.just(0), st.just(True))
lists = st.lists(wishes, min_size=1, max_size=2).map(tuple)
claims = st.builds(
    Claim, st.lists(lists, min_size=1, max_size=2).map(tuple), st.sampled_from(("", "match", "distinct"))
) | st.builds(Claim, st.tuples(st.tuples(everything)), st.just(""))


def solutions(found: Sequence[Thing], wanted: Sequence[Claim], slots: int) -> Iterator[list[list[Thing]]]:
    """Every way to give each claim its devices."""
    options = [
        [
            [each for request in chosen for each in request]
            for chosen in product(*(list(_picks(found, request)) for request in one.requests))
        ]
        for one in wanted
    ]
    for each in product(*options):
        given = [thing for one in each for thing in one]
        if len({thing.name for thing in given}) < len(given) or any(thing.taken for thing in given):
            continue
        if sum(thing.slots for thing in found if thing.taken or thing in given) > slots and any(
            thing.slots for thing in given
        ):
            continue
        if all(_agrees(one.attribute, mine) for one, mine in zip(wanted, each, strict=True)):
            yield list(each)


def _picks(found: Sequence[Thing], request: Sequence[Wish]) -> Iterator[Sequence[Thing]]:
    for wish in request:
        suits = [each for each in found if wish.kind in ("", each.kind)]
        if not wish.count:
            if suits and not any(each.tainted and not wish.tolerates for each in suits):
                yield suits
            continue
        yield from combinations([each for each in suits if wish.tolerates or not each.tainted], wish.count)


def _agrees(attribute: str, mine: Sequence[Thing]) -> bool:
    different = {each.numa for each in mine}
    return not attribute or (len(different) <= 1 if attribute == "match" else len(different) == len(mine))


def as_device(thing: Thing) -> Object:
    made = a_device(thing.name, attributes={"kind": {"string": thing.kind}, "numa": {"int": thing.numa}})
    if thing.tainted:
        made["taints"] = [{"key": "broken", "effect": "NoSchedule"}]
    if thing.slots:
        made["consumesCounters"] = [{"counterSet": "slots", "counters": {"slot": {"value": str(thing.slots)}}}]
    return made


def as_claim(name: str, wanted: Claim) -> Object:
    requests = []
    for at, ways in enumerate(wanted.requests):
        made = [_asked(each) for each in ways]
        base = {"name": f"r{at}"}
        if len(made) == 1:
            requests.append({**base, "exactly": made[0]})
        else:
            requests.append({**base, "firstAvailable": [{"name": f"w{i}", **each} for i, each in enumerate(made)]})
    kind = {"match": "matchAttribute", "distinct": "distinctAttribute"}
    more = {"constraints": [{kind[wanted.attribute]: f"{DRIVER}/numa"}]} if wanted.attribute else {}
    return claim(name, *requests, **more)


def _asked(wish: Wish) -> Object:
    selectors = [f"device.attributes['{DRIVER}'].kind == '{wish.kind}'"] if wish.kind else []
    asked: Object = request("x", *selectors)["exactly"]
    if not wish.count:
        asked = {**request("x", *selectors, allocationMode="All")["exactly"]}
    else:
        asked["count"] = wish.count
    if wish.tolerates:
        asked["tolerations"] = [{"key": "broken", "operator": "Exists"}]
    return asked


@settings(deadline=None, max_examples=250)
@given(things, st.lists(claims, min_size=1, max_size=2), st.integers(0, 3), st.booleans())
def test_it_finds_a_way_where_there_is_one(found: list[Thing], wanted: list[Claim], slots: int, split: bool) -> None:
    counters = a_slice("counters", [], pool="p", allNodes=True)
    counters["spec"]["sharedCounters"] = [{"name": "slots", "counters": {"slot": {"value": str(slots)}}}]
    half = len(found) // 2 if split else len(found)
    parts = [part for part in (found[:half], found[half:]) if part]
    slices = [
        a_slice(f"s{at}", [as_device(each) for each in part], pool="p", nodeName="n") for at, part in enumerate(parts)
    ]
    for each in (counters, *slices):
        each["spec"]["pool"]["resourceSliceCount"] = 1 + len(slices)
    gone = claim("gone")
    gone["status"] = {
        "allocation": {
            "devices": {
                "results": [
                    {"request": "r", "driver": DRIVER, "pool": "p", "device": each.name} for each in found if each.taken
                ]
            }
        }
    }
    devices = inventory(counters, *slices, claims=[gone])
    got = names(devices, *(as_claim(f"c{at}", each) for at, each in enumerate(wanted)))
    ways = [[[thing.name for thing in one] for one in each] for each in solutions(found, wanted, slots)]
    if got is None:
        assert not ways
    else:
        assert [sorted(each) for each in got] in [[sorted(one) for one in each] for each in ways]


def in_zone(name: str) -> Object:
    return {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": [name]}]}]}


# One by one ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "reached"),
    [
        ({"allNodes": True}, True),
        ({"nodeName": "n"}, True),
        ({"nodeName": "other"}, False),
        ({"nodeSelector": in_zone("a")}, True),
        ({"nodeSelector": in_zone("b")}, False),
    ],
)
def test_from_where_devices_are_reached(where: Mapping[str, Any], reached: bool) -> None:
    assert names(inventory(a_slice("s", [a_device("d")], **where)), claim("c")) == ([["d"]] if reached else None)
    single = a_slice("s", [a_device("d", **where), a_device("far", nodeName="far")], perDeviceNodeSelection=True)
    found = outcome(inventory(single), claim("c"))
    assert (found is not None) is reached
    if found is not None and "nodeSelector" in where:
        assert found[0]["nodeSelector"]["nodeSelectorTerms"] == where["nodeSelector"]["nodeSelectorTerms"]


def test_a_pool_counts_when_all_of_its_newest_generation_is_there() -> None:
    old, new = (
        a_slice("old", [a_device("a")], pool="p", nodeName="n"),
        a_slice("new", [a_device("b")], pool="p", nodeName="n"),
    )
    new["spec"]["pool"] |= {"generation": 2, "resourceSliceCount": 2}
    assert names(inventory(old), claim("c")) == [["a"]]
    assert names(inventory(old, new), claim("c")) is None
    rest = a_slice("rest", [a_device("c")], pool="p", nodeName="n")
    rest["spec"]["pool"] |= {"generation": 2, "resourceSliceCount": 2}
    assert names(inventory(old, new, rest), claim("c", request(count=2))) == [["b", "c"]]
    with pytest.raises(
        AllocationError, match=f"asks for all devices, but resource pool {DRIVER}/p is currently being updated"
    ):
        search(inventory(old, new), claim("c", request(allocationMode="All")))
    twice = a_slice("twice", [a_device("b")], pool="p", nodeName="n")
    twice["spec"]["pool"] |= {"generation": 2, "resourceSliceCount": 2}
    with pytest.raises(InvalidPools, match="invalid resource pools were encountered"):
        names(inventory(new, twice), claim("c"))


def test_a_device_is_shared_by_as_many_as_its_capacity_allows() -> None:
    policy = {"default": "10Gi", "validRange": {"min": "10Gi", "step": "5Gi"}}
    shared = {
        "name": "d",
        "allowMultipleAllocations": True,
        "capacity": {"memory": {"value": "40Gi", "requestPolicy": policy}},
    }
    devices = inventory(a_slice("n", [shared]))
    asked = [
        claim(f"c{at}", request(capacity={"requests": {"memory": amount}})) for at, amount in enumerate(("1Gi", "12Gi"))
    ]
    found = outcome(devices, *asked)
    assert found is not None
    given = [each["devices"]["results"][0] for each in found]
    assert [each["consumedCapacity"] for each in given] == [{"memory": "10Gi"}, {"memory": "15Gi"}]
    assert all(each["shareID"] for each in given)
    for one, allocated in zip(asked, found, strict=True):
        devices.promise(one, allocated)
    assert names(devices, claim("more", request(capacity={"requests": {"memory": "16Gi"}}))) is None
    assert names(devices, claim("less")) == [["d"]]
    assert names(devices, claim("odd", request(capacity={"requests": {"speed": "1"}}))) is None
    devices.take_back(asked[1])
    assert names(devices, claim("more", request(capacity={"requests": {"memory": "16Gi"}}))) == [["d"]]


def test_access_for_administrators_takes_nothing_away() -> None:
    devices = inventory(a_slice("n", [a_device("d")]))
    first = claim("first")
    (given,) = outcome(devices, first) or ()
    devices.promise(first, given)
    assert names(devices, claim("second")) is None
    (found,) = outcome(devices, claim("admin", request(adminAccess=True))) or ()
    assert found["devices"]["results"][0]["adminAccess"] is True
    devices.promise(claim("admin"), found)
    devices.take_back(first)
    assert names(devices, claim("second")) == [["d"]]


def test_configuration_comes_from_class_and_claim() -> None:
    def opaque(value: int) -> Object:
        return {"opaque": {"driver": DRIVER, "parameters": {"v": value}}}

    devices = inventory(a_slice("n", [a_device("a"), a_device("b")]), classes=[a_class("gpu", config=[opaque(1)])])
    ways = [{"name": name, **request()["exactly"], "count": count} for name, count in (("many", 9), ("few", 1))]
    asked = claim(
        "c",
        {"name": "first", "firstAvailable": ways},
        request("second"),
        config=[opaque(2), {"requests": ["first/few"], **opaque(3)}, {"requests": ["first/many"], **opaque(4)}],
    )
    (found,) = outcome(devices, asked) or ()
    assert [each["request"] for each in found["devices"]["results"]] == ["first/few", "second"]
    assert found["devices"]["config"] == [
        {"source": "FromClass", "requests": ["first/few", "second"], **opaque(1)},
        {"source": "FromClaim", **opaque(2)},
        {"source": "FromClaim", "requests": ["first/few"], **opaque(3)},
    ]


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        ("device.attributes['x'].y", "claim d/c: selector #0: CEL runtime error: no such key: y"),
        (
            "device.capacity['gpu.example.com'].memory",
            "claim d/c: selector #0: CEL compile error: must evaluate to bool",
        ),
        ("device.nothing", "claim d/c: selector #0: CEL compile error: "),
    ],
)
def test_selectors_that_fail(selector: str, text: str) -> None:
    with pytest.raises(AllocationError) as caught:
        names(inventory(a_slice("n", [a_device("d")])), claim("c", request("r", selector)))
    assert str(caught.value).startswith(text)


def test_libraries_of_selectors() -> None:
    device = a_device("d", attributes={"version": {"version": "1.10.0"}, f"{DRIVER}/fast": {"bool": True}})
    devices = inventory(a_slice("n", [device]))
    for selector in (
        f"device.attributes['{DRIVER}'].version.isGreaterThan(semver('1.9.0'))",
        f"device.capacity['{DRIVER}'].memory.compareTo(quantity('40Gi')) == 0",
        f"device.attributes['{DRIVER}'].fast && !device.allowMultipleAllocations",
        "!('x' in device.attributes['nobody'])",
        f"cel.bind(a, device.attributes['{DRIVER}'], a.fast)",
    ):
        assert names(devices, claim("c", request("r", selector))) == [["d"]], selector


def test_a_hopeless_search_ends() -> None:
    many = [a_device(f"d{at}", attributes={"numa": {"int": at}}) for at in range(30)]
    wanted = claim("c", request(count=10), constraints=[{"matchAttribute": f"{DRIVER}/none"}])
    assert names(inventory(a_slice("n", many)), wanted) is None
    sums = claim("c", request("a", count=8), request("b", "device.capacity['x'].y == quantity('1') && false"))
    with pytest.raises(TimedOut):
        names(inventory(a_slice("n", many)), sums)


@pytest.mark.parametrize(("limit", "done"), [("10s", True), ("1ns", False), ("2ms", False), ("0s", True)])
def test_how_long_a_search_may_take_is_told(limit: str, done: bool) -> None:
    plugin = dynamic_resources.make({"bindingTimeout": "600s", "filterTimeout": limit})
    columns = Columns()
    columns.set_node({"metadata": {"name": "n"}, "status": {}})
    columns.devices.set_class("gpu", a_class())
    columns.devices.set_slice("n", a_slice("n", [a_device(f"d{at}") for at in range(4)]))
    wanted = claim("c", request(count=3))
    columns.devices.set_claim(("d", "c"), wanted)
    spec = {"containers": [], "resourceClaims": [{"name": "c", "resourceClaimName": "c"}]}
    pod = podinfo.read({"metadata": {"uid": "u", "name": "p", "namespace": "d"}, "spec": spec})
    assert plugin.narrow is not None
    if done:
        assert not plugin.narrow(columns, pod, columns.live)
    else:
        with pytest.raises(PluginError, match="node n: timed out trying to allocate devices"):
            plugin.narrow(columns, pod, columns.live)


def test_rules_taint_what_they_select() -> None:
    devices = inventory(a_slice("n", [a_device("a"), a_device("b")]))
    taint = {"key": "broken", "value": "yes", "effect": "NoSchedule"}
    devices.set_rule("r", {"spec": {"taint": taint, "deviceSelector": {"driver": DRIVER, "device": "a"}}})
    assert names(devices, claim("c")) == [["b"]]
    tolerant = claim("c", request(tolerations=[{"key": "broken", "operator": "Equal", "value": "yes"}]))
    assert names(devices, tolerant) == [["a"]]
    devices.set_rule("r", {"spec": {"taint": taint}})
    assert names(devices, claim("c")) is None
    devices.set_rule("r", None)
    assert names(devices, claim("c")) == [["a"]]
