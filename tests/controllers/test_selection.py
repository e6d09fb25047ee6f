from __future__ import annotations

import pytest

from steersman.client.controller import Controller
from steersman.controllers import ALIASES, ALL, load, select

from .conftest import World


def test_every_controller_has_the_name_it_is_listed_under() -> None:
    for name in ALL:
        found = load(name)
        assert isinstance(found, Controller)
        assert found.name == name


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        (["*"], list(ALL)),
        (["*", "-node-lifecycle-controller"], [name for name in ALL if name != "node-lifecycle-controller"]),
        (["deployment", " podgc "], ["deployment-controller", "pod-garbage-collector-controller"]),
        (["*", "-nodelifecycle"], [name for name in ALL if name != "node-lifecycle-controller"]),
        (["deployment-controller", " job-controller "], ["deployment-controller", "job-controller"]),
        ([], []),
        (["-job-controller"], []),
        (["*", "-job-controller", "job-controller"], list(ALL)),
    ],
)
def test_selection(terms: list[str], expected: list[str]) -> None:
    assert select(terms) == expected


def test_older_names_are_of_controllers_that_exist() -> None:
    assert set(ALIASES.values()) <= ALL.keys()
    assert not ALIASES.keys() & ALL.keys()


@pytest.mark.parametrize("name", ["nonsense", "-nonsense", "deploy", "**"])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f'"{name}" is not in the list of known controllers'.replace("*", r"\*")):
        select(["*", name])


@pytest.mark.slow
async def test_all_together_are_idle_when_nothing_happens(world: World) -> None:
    world.start("*")
    await world.settle(60)
    revision = world.cluster.store.revision
    await world.settle(6 * 3600)
    assert world.cluster.store.revision == revision
