from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from steersman.engine.interface import ContainerConfig, ExecResult, PullFailed, Runtime
from steersman.lib.clock import LoopClock
from steersman.lib.virtualtime import VirtualLoop
from steersman.testing.fakeruntime import FakeImages, FakeRuntime, Script, scripted_by_environment
from steersman.testing.suites.runtime import CHECKS, Programs

from .virtual import virtual
from .world import World

FOREVER, STUBBORN, ECHO = ("forever",), ("stubborn",), ("echo",)


def answers(command: Sequence[str]) -> ExecResult | None:
    match command[0]:
        case "print":
            return ExecResult(0, command[1].encode(), command[2].encode())
        case "exit":
            return ExecResult(int(command[1]), b"", b"")
    return None


def script(config: ContainerConfig) -> Script:
    match config.command[0]:
        case "exit":
            return Script(runs_for=0.01, exit_code=int(config.command[1]), answers=answers)
        case "stubborn":
            return Script(stops_in=3600, answers=answers)
    return Script(answers=answers)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_fake_engine_keeps_the_contract(
    check: Callable[[Runtime, Programs], Awaitable[None]], tmp_path: Path
) -> None:
    async def run() -> None:
        clock = LoopClock()
        images = FakeImages(clock, present=["busybox"])
        runtime = FakeRuntime(clock, scripts=script, images=images)
        programs = Programs(
            "busybox",
            str(tmp_path),
            FOREVER,
            STUBBORN,
            lambda code: ("exit", str(code)),
            lambda out, err: ("print", out, err),
            ECHO,
        )
        await runtime.start()
        await check(runtime, programs)
        await runtime.close()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(run())


def test_simulated_containers_are_scripted_by_their_environment() -> None:
    config = ContainerConfig("a", "b", env=[("SIMULATED_RUN_SECONDS", "2.5"), ("SIMULATED_EXIT_CODE", "3")])
    found = scripted_by_environment(config)
    assert (found.runs_for, found.exit_code) == (2.5, 3)
    assert scripted_by_environment(ContainerConfig("a", "b")).runs_for is None


@virtual
async def test_images_are_found_by_every_name(world: World) -> None:
    image = world.images.find("nginx:1.7.9")
    assert image is not None
    assert world.images.find("docker.io/library/nginx:1.7.9") is image
    assert world.images.find(image.id) is image and world.images.find(image.digests[0]) is image
    await world.images.remove("nginx:1.7.9")
    assert world.images.find(image.id) is None
    world.images.failures["x"] = PullFailed("no")
    with pytest.raises(PullFailed):
        await world.images.pull("x")
