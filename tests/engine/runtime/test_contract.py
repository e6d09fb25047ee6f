"""The real runtime passes the contract suite."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from steersman.engine.runtime import LocalRuntime
from steersman.testing.suites import runtime as suite


@pytest.mark.node
@pytest.mark.parametrize("check", suite.CHECKS, ids=lambda check: check.__name__)
async def test_contract(
    runtime: LocalRuntime, tmp_path: Path, check: Callable[[LocalRuntime, suite.Programs], Awaitable[None]]
) -> None:
    await check(runtime, suite.Programs("busybox", str(tmp_path / "logs")))
