"""How fast silent nodes are emptied, zone by zone."""

from __future__ import annotations

import pytest

from steersman.api.resource import NODES, Object
from steersman.controllers import load
from steersman.controllers.nodelifecycle import relabelled
from steersman.controllers.nodelifecycle.zones import Pace, Zones
from steersman.controllers.ttl import step_for
from steersman.lib.clock import rfc3339

from .conftest import World


def a_node(name: str, zone: str = "a", *, ready: bool = True, **labels: str) -> Object:
    labels = {"topology.kubernetes.io/zone": zone} | {key.replace("_", "-"): value for key, value in labels.items()}
    condition = {"type": "Ready", "status": str(ready)}
    return {"metadata": {"name": name, "labels": labels}, "spec": {}, "status": {"conditions": [condition]}}


def zones_of(**sizes: tuple[int, int]) -> Zones:
    """Zones by name: how many nodes are ready, and how many are not."""
    zones = Zones(Pace())
    for zone, (ready, failing) in sizes.items():
        for number in range(ready + failing):
            name = f"{zone}-{number}"
            zones.tell(name, a_node(name, zone, ready=number < ready))
    return zones


@pytest.mark.parametrize(
    ("sizes", "rate"),
    [
        ({"a": (9, 1)}, 0.1),
        ({"a": (1, 2)}, 0.1),  # two are never too many
        ({"a": (2, 3)}, 0.0),  # a small zone of which most fail
        ({"a": (5, 4)}, 0.1),  # less than 55 per cent
        ({"a": (20, 31)}, 0.01),  # a large one
        ({"a": (0, 5), "b": (1, 0)}, 0.1),  # the zone is lost, others are there to take its pods
        ({"a": (0, 5), "b": (0, 1)}, 0.0),  # nobody is heard: it is us
    ],
)
def test_the_pace_follows_from_who_fails(sizes: dict[str, tuple[int, int]], rate: float) -> None:
    zones = zones_of(**sizes)
    failing = a_node("a-0", ready=False)
    assert zones.rate(":\0:a") == rate
    assert (zones.wait(failing, 5.0) is None) == (rate == 0)


def test_one_turn_after_another() -> None:
    zones = zones_of(a=(8, 2), b=(3, 1))
    failing = a_node("a-8", ready=False)
    assert zones.wait(failing, 100.0) == 0
    assert zones.wait(failing, 104.0) == 6.0
    assert zones.wait(a_node("b-3", "b", ready=False), 104.0) == 0  # each zone has turns of its own
    assert zones.wait(failing, 110.0) == 0


def test_a_pace_that_changes_begins_with_a_whole_wait() -> None:
    zones = zones_of(a=(2, 3))
    failing = a_node("a-4", ready=False)
    zones.moved = False
    assert zones.wait(failing, 100.0) is None
    zones.tell("a-3", a_node("a-3"))
    assert zones.moved
    assert zones.wait(failing, 200.0) == 10.0


def test_excluded_and_deleted_nodes_do_not_count() -> None:
    zones = zones_of(a=(1, 0))
    zones.tell("out", a_node("out", ready=False, **{"node.kubernetes.io/exclude_disruption": ""}))
    zones.tell("a-0", None)
    assert not zones.stopped
    zones.tell("in", a_node("in", ready=False))
    assert zones.stopped


@pytest.mark.parametrize("value", ["fast", "nan", "-1", "inf"])
def test_settings_that_cannot_be_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match=f'invalid argument "{value}" for "--node-eviction-rate"'):
        load("node-lifecycle-controller").asked_for({"node-eviction-rate": value})


def test_older_labels_follow_those_of_today() -> None:
    node = {"metadata": {"name": "n", "labels": {"kubernetes.io/os": "linux", "beta.kubernetes.io/os": "plan9"}}}
    found = relabelled(node)
    assert found == {"kubernetes.io/os": "linux", "beta.kubernetes.io/os": "linux"}
    assert relabelled({"metadata": {"labels": found}}) is None
    assert relabelled({"metadata": {}}) is None


async def tell(world: World, name: str, status: str) -> None:
    stamp = rfc3339(world.clock.now())
    ready = {"type": "Ready", "status": status, "lastHeartbeatTime": stamp, "lastTransitionTime": stamp}
    await world.set_status(NODES, await world.get(NODES, name), conditions=[ready])


async def marked(world: World) -> list[str]:
    return [
        node["metadata"]["name"]
        for node in await world.list(NODES)
        if any(taint["effect"] == "NoExecute" for taint in node["spec"].get("taints") or ())
    ]


async def test_nodes_that_fail_together_are_emptied_one_by_one(world: World) -> None:
    world.start(
        "node-lifecycle-controller", **{"node-startup-grace-period": "9999", "node-monitor-grace-period": "9999"}
    )
    names = [f"n-{number}" for number in range(7)]
    for name in names:
        await world.client.create(NODES, {"metadata": {"name": name}})
        await tell(world, name, "True")
    await world.settle(1)
    for name in names[:3]:
        await tell(world, name, "False")
    await world.settle(5)
    assert len(await marked(world)) == 1
    await world.settle(10)
    assert len(await marked(world)) == 2
    await tell(world, names[3], "False")  # four of seven: nobody is driven away any more
    await world.settle(300)
    assert len(await marked(world)) == 2
    await tell(world, names[3], "True")
    await world.settle(5)
    assert len(await marked(world)) == 2
    await world.settle(10)
    assert len(await marked(world)) == 3
    for name in names[3:]:
        await tell(world, name, "False")
    await world.settle(5)
    assert await marked(world) == []
    await world.client.delete(NODES, names[0])
    await world.settle(2)
    told = [text for reason, text in await world.events() if reason in ("RegisteredNode", "RemovingNode")]
    assert "Node n-6 event: Registered Node n-6 in Controller" in told
    assert "Node n-0 event: Removing Node n-0 from Controller" in told


@pytest.mark.parametrize(
    ("count", "step", "expected"),
    [(1, 0, 0), (100, 0, 0), (101, 0, 1), (95, 1, 1), (89, 1, 0), (5000, 0, 4), (3, 4, 0), (1000, 2, 2)],
)
def test_kubelets_keep_what_they_read_longer_in_large_clusters(count: int, step: int, expected: int) -> None:
    assert step_for(count, step) == expected


async def test_nodes_are_told_how_long_to_keep_what_they_read(world: World) -> None:
    world.start("ttl-controller")
    await world.client.create(NODES, {"metadata": {"name": "n", "annotations": {"a": "b"}}})
    await world.settle(1)
    node = await world.get(NODES, "n")
    assert node["metadata"]["annotations"] == {"a": "b", "node.alpha.kubernetes.io/ttl": "0"}
