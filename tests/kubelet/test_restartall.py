"""A container whose end restarts every container of its pod, in the same sandbox (KEP-5532)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from steersman.api.resource import PODS
from steersman.engine.interface import ContainerState
from steersman.kubelet import status
from steersman.kubelet.plan import Cause, Kill, Remove, Start
from steersman.testing.fakeruntime import Script

from .pods import container, pod
from .test_plan import UID, planned, run, seen
from .virtual import virtual
from .world import World

RULE = {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}
RULES: dict[str, Any] = {"restartPolicy": "Never", "restartPolicyRules": [RULE]}
REMOVED = {
    "reason": "RestartingAllContainers",
    "message": "The container is removed because RestartAllContainers in place",
}


def watched(**more: Any) -> dict[str, Any]:
    return pod("web", container("main"), container("guard", **RULES), uid=UID, restartPolicy="Never", **more)


def test_all_is_removed_and_who_asked_for_it_last() -> None:
    wanted = watched(initContainers=[container("prepare")])
    there = seen(run("prepare", "exited", 0), run("main"), run("guard", "exited", 42, **RULES))
    steps = planned(wanted, there).steps
    assert list(steps) == [
        Kill("main", "main-0", "killing", Cause.RESTART_ALL),
        Remove("main-0"),
        Remove("prepare-0"),
        Remove("guard-0"),
    ]
    assert [type(each) for each in planned(wanted, seen(run("guard", "exited", 42, **RULES))).steps] == [Remove]
    [first] = planned(wanted, seen()).steps
    assert isinstance(first, Start) and first.name == "prepare"


def test_another_end_restarts_nothing() -> None:
    steps = planned(watched(), seen(run("main"), run("guard", "exited", 1, **RULES))).steps
    assert not steps


def told(found: dict[str, Any]) -> tuple[str, str]:
    [mine] = [each for each in found["status"]["conditions"] if each["type"] == "AllContainersRestarting"]
    return mine["status"], mine.get("reason", "")


def shown(found: dict[str, Any], field: str = "containerStatuses") -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in found["status"].get(field) or ()}


@virtual
async def test_a_pod_begins_again_where_it_is(world: World) -> None:
    ends = iter([42])
    world.scripts["guard"] = lambda _: Script(runs_for=5.0, exit_code=42) if next(ends, 0) else Script()
    world.scripts["prepare"] = Script(runs_for=1.0)
    histories: list[tuple[str, str]] = []
    async with world.kubelet():
        world.api.put(PODS, watched(initContainers=[container("prepare")]))
        await world.until_phase("web", "Running")
        first = world.api.pod("web")
        assert first is not None
        assert told(first) == ("False", "")
        sandboxes = [each.id for each in world.runtime.sandboxes()]

        def again() -> bool:
            found = world.api.pod("web")
            assert found is not None
            histories.append(told(found))
            return all(each["restartCount"] == 1 for each in shown(found).values()) and world.phase("web") == "Running"

        await world.api.until(again)
        await world.clock.sleep(30)
        found = world.api.pod("web")
        assert found is not None
        states = shown(found)
        assert [each["restartCount"] for each in states.values()] == [1, 1]
        assert states["main"]["lastState"]["terminated"] == {"exitCode": 137, **REMOVED}
        assert states["guard"]["lastState"]["terminated"]["exitCode"] == 42
        assert shown(found, "initContainerStatuses")["prepare"]["restartCount"] == 1
        assert [each.id for each in world.runtime.sandboxes()] == sandboxes
        assert told(found) == ("False", "")
        assert ("True", "RestartAllContainersStarted") in histories
        messages = [each[3] for each in world.api.events]
        assert "killing" in messages
        initialized = [each["status"] for each in found["status"]["conditions"] if each["type"] == "Initialized"]
        assert initialized == ["True"]


def test_while_it_is_under_way_containers_wait() -> None:
    before = {
        "phase": "Running",
        "containerStatuses": [
            {"name": "guard", "restartCount": 2, "state": {"terminated": {"exitCode": 42}}, "lastState": {}},
            {"name": "main", "restartCount": 0, "state": {"running": {}}, "lastState": {}},
        ],
    }
    found = status.pod_status(watched(), before, seen(), status.Known(), 1.0)
    states = {each["name"]: each for each in found["containerStatuses"]}
    assert states["main"]["state"] == {"waiting": REMOVED}
    assert states["main"]["lastState"] == {"terminated": {"exitCode": 137, **REMOVED}}
    assert [states[name]["restartCount"] for name in ("guard", "main")] == [3, 1]
    assert status.restarts(watched(), before, seen()) == {"guard": 3, "main": 1}
    assert found["phase"] == "Running"
    later = status.pod_status(watched(), found, seen(), status.Known(), 2.0)
    assert status.restarts(watched(), later, seen()) == {"guard": 3, "main": 1}


@virtual
async def test_a_kubelet_that_dies_meanwhile_goes_on(world: World) -> None:
    ends = iter([42])
    world.scripts["guard"] = lambda _: Script(runs_for=5.0, exit_code=42) if next(ends, 0) else Script()
    async with world.kubelet():
        world.api.put(PODS, watched())
        await world.until_phase("web", "Running")
    await world.clock.sleep(10)
    for each in world.runtime.containers():
        if each.config.name == "main":
            await world.runtime.stop_container(each.id, 0)
            await world.runtime.remove_container(each.id)
    async with world.kubelet():
        await _running(world, lambda: all(each["restartCount"] == 1 for each in shown(world.api.pod("web")).values()))


async def _running(world: World, when: Callable[[], bool]) -> None:
    def done() -> bool:
        running = [each for each in world.runtime.containers() if each.state is ContainerState.RUNNING]
        return len(running) == 2 and when()

    await world.api.until(done)
