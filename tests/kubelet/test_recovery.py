"""A kubelet that is killed at any moment, over an engine that goes on: the end is the same."""

from __future__ import annotations

import pytest

from steersman.api.resource import PODS
from steersman.engine.interface import ExecResult, SandboxState
from steersman.testing.fakeruntime import Script

from .pods import container, pod
from .virtual import virtual
from .world import World

MOMENTS = [round(0.07 * number, 2) for number in range(24)]


def slow(world: World) -> None:
    """An engine that takes its time, so that there is a middle to every step."""
    world.runtime._sandbox_seconds = 0.3
    world.runtime._start_seconds = 0.2
    world.images._pull_seconds = 0.2
    world.scripts["init"] = Script(runs_for=0.3)
    world.scripts["main"] = Script(answers=lambda command: ExecResult(0, b"", b""), stops_in=0.4)


def big_pod() -> dict[str, object]:
    probe = {"exec": {"command": ["ok"]}, "periodSeconds": 1}
    inits = [container("init", image="busybox"), container("side", restartPolicy="Always")]
    return pod("web", container(readinessProbe=probe, image="slow:1"), container("other"), initContainers=inits)


@pytest.mark.parametrize("moment", MOMENTS)
@virtual
async def test_killed_while_starting_a_pod(world: World, moment: float) -> None:
    slow(world)
    async with world.kubelet():
        world.api.put(PODS, big_pod())
        await world.clock.sleep(moment)
    await world.clock.sleep(0.5)
    async with world.kubelet():
        await world.until_phase("web", "Running")
        await world.api.until(
            lambda: all(each["ready"] for each in world.api.pod("web")["status"]["containerStatuses"])
        )
        running = [each.config.name for each in world.runtime.containers() if each.pid]
        assert sorted(running) == ["main", "other", "side"]
        assert [each.state for each in world.runtime.sandboxes()] == [SandboxState.READY]
        assert [each["restartCount"] for each in world.api.pod("web")["status"]["containerStatuses"]] == [0, 0]


@pytest.mark.parametrize("moment", MOMENTS[:14])
@virtual
async def test_killed_while_ending_a_pod(world: World, moment: float) -> None:
    slow(world)
    async with world.kubelet():
        world.api.put(PODS, big_pod())
        await world.until_phase("web", "Running")
        world.api.delete_gracefully("web", 5)
        await world.clock.sleep(moment)
    async with world.kubelet():
        await world.api.until(lambda: world.api.pod("web") is None)
        assert not world.runtime.sandboxes() and not world.runtime.containers()
        assert not list((world.settings.root / "pods").iterdir())


@pytest.mark.parametrize("moment", MOMENTS)
@virtual
async def test_deleted_while_starting(world: World, moment: float) -> None:
    slow(world)
    async with world.kubelet() as kubelet:
        world.api.put(PODS, big_pod())
        await world.clock.sleep(moment)
        world.api.delete_gracefully("web", 5)
        await world.api.until(lambda: world.api.pod("web") is None)
        await world.api.until(lambda: not kubelet.pods())
        assert not world.runtime.sandboxes() and not world.runtime.containers()
        assert not list((world.settings.root / "pods").iterdir())
        assert not list((world.settings.memory / "pods").iterdir())
