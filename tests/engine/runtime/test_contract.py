"""The real runtime passes the contract suite, on both event loops that it meets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from steersman.engine.runtime import LocalRuntime, purge
from steersman.testing.suites import runtime as suite
from tests.engine.runtime.conftest import CGROUP, BusyboxImages, make_runtime

pytestmark = pytest.mark.node
Check = Callable[[LocalRuntime, suite.Programs], Awaitable[None]]


@pytest.mark.parametrize("check", suite.CHECKS, ids=lambda check: check.__name__)
async def test_contract(runtime: LocalRuntime, tmp_path: Path, check: Check) -> None:
    await check(runtime, suite.Programs("busybox", str(tmp_path / "logs")))


@pytest.mark.parametrize("check", suite.CHECKS, ids=lambda check: check.__name__)
def test_contract_on_uvloop(images: BusyboxImages, tmp_path: Path, check: Check) -> None:
    async def run() -> None:
        runtime = make_runtime(tmp_path / "state", images)
        await runtime.start()
        try:
            await check(runtime, suite.Programs("busybox", str(tmp_path / "logs")))
        finally:
            await runtime.close()
            purge(tmp_path / "state", CGROUP)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
