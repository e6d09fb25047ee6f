"""Every transport passes the contract suite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from steersman.client.transport import InProcess
from steersman.lib.clock import SystemClock
from steersman.lib.http.client import Address, HttpClient
from steersman.lib.http.messages import Transport
from steersman.lib.http.server import Server
from steersman.testing.suites import transport as suite


@pytest.fixture(params=["in process", "tcp", "unix"])
async def reached(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Transport, suite.FarEnd]]:
    far = suite.FarEnd()
    if request.param == "in process":
        inside = InProcess(far.answer)
        yield inside, far
        await inside.close()
        return
    async with Server(far.answer, SystemClock()) as server:
        if request.param == "tcp":
            address = Address("127.0.0.1", await server.listen("127.0.0.1", 0))
        else:
            await server.listen_unix(tmp_path / "socket")
            address = Address("localhost", unix=tmp_path / "socket")
        client = HttpClient(address)
        yield client, far
        await client.close()


@pytest.mark.parametrize("check", suite.CHECKS, ids=lambda check: check.__name__)
async def test_contract(reached: tuple[Transport, suite.FarEnd], check: suite.Check) -> None:
    await check(*reached)
