from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from steersman.api.resource import NAMESPACES
from steersman.client.controller import Context, Controller, For, Key, Result, run
from steersman.controllers import ALIASES, ALL, GATED, OFF, USUAL, load, select

from .conftest import World

USUALLY = [name for name in ALL if name not in OFF]


def test_every_controller_has_the_name_it_is_listed_under() -> None:
    for name in ALL:
        found = load(name)
        assert isinstance(found, Controller)
        assert found.name == name


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        (["*"], USUALLY),
        (USUAL, [name for name in ALL if name != "selinux-warning-controller"]),
        (["*", "selinux-warning-controller"], [*USUALLY, "selinux-warning-controller"]),
        (["*", "-podgroup-protection-controller"], USUALLY),
        (["podgroup-protection-controller"], []),
        (["*", "-node-lifecycle-controller"], [name for name in USUALLY if name != "node-lifecycle-controller"]),
        (["deployment", " podgc "], ["deployment-controller", "pod-garbage-collector-controller"]),
        (["*", "-nodelifecycle"], [name for name in USUALLY if name != "node-lifecycle-controller"]),
        (["deployment-controller", " job-controller "], ["deployment-controller", "job-controller"]),
        ([], []),
        (["-job-controller"], []),
        (["*", "-job-controller", "job-controller"], USUALLY),
    ],
)
def test_selection(terms: list[str], expected: list[str]) -> None:
    assert select(terms) == expected


def test_older_names_are_of_controllers_that_exist() -> None:
    assert set(ALIASES.values()) <= ALL.keys()
    assert not ALIASES.keys() & ALL.keys()
    assert not GATED & ALL.keys()
    assert ALL.keys() > OFF


@pytest.mark.parametrize("name", ["nonsense", "-nonsense", "deploy", "**"])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f'"{name}" is not in the list of known controllers'.replace("*", r"\*")):
        select(["*", name])


@pytest.mark.parametrize(
    ("name", "waits"),
    [
        ("deployment-controller", (0.005, 1000.0)),
        ("job-controller", (1.0, 60.0)),
        ("namespace-controller", (0.005, 60.0)),
        ("endpointslice-controller", (1.0, 1000.0)),
        ("endpointslice-mirroring-controller", (1.0, 100.0)),
        ("certificatesigningrequest-signing-controller", (0.2, 1000.0)),
    ],
)
def test_what_fails_is_tried_again_as_often_as_by_the_original(name: str, waits: tuple[float, float]) -> None:
    assert load(name).retry == waits


async def test_tries_that_fail_come_ever_more_slowly(world: World) -> None:
    times: list[float] = []

    async def fail(context: Context, key: Key) -> Result:
        if key.name == "only":
            times.append(context.clock.monotonic())
        raise OSError("nobody answers")

    failing = Controller("failing", fail, (For(NAMESPACES),), retry=(1.0, 4.0))
    context = Context(world.client, world.informers, world.clock, world.recorder, Random(1))
    await world.client.create(NAMESPACES, {"metadata": {"name": "only"}})
    world.tasks.spawn(run(failing, context), "failing")
    await world.settle(60)
    assert [round(later - sooner) for sooner, later in pairwise(times)][:5] == [1, 2, 4, 4, 4]


@pytest.mark.slow
async def test_all_together_are_idle_when_nothing_happens(world: World) -> None:
    world.start("*")
    await world.settle(60)
    revision = world.cluster.store.revision
    await world.settle(6 * 3600)
    assert world.cluster.store.revision == revision
