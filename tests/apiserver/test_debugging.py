"""/debug over a server with priority and fairness: the tables' columns, and how much is logged."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from steersman.apiserver.debugging import Debugging
from steersman.apiserver.flow.keeper import Keeper
from steersman.lib.tasks import Tasks, turn
from tests.apiserver.guarded import Guarded

DUMP = "/debug/api_priority_and_fairness/dump_"


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    async with Guarded(tmp_path) as server, Tasks():
        keeper = Keeper(server.server, 600)
        await keeper.ensure()
        server.server.flow = keeper.gate
        server.server.paths.append(Debugging(server.server, logging.getLogger("steersman.test.debugging")))
        yield server


async def ask(guarded: Guarded, path: str, method: str = "GET", body: bytes = b"") -> tuple[int, str]:
    response, said = await guarded.client("admin").raw(method, path, body)
    return response.status, said.decode()


async def test_levels_and_queues(guarded: Guarded) -> None:
    status, text = await ask(guarded, f"{DUMP}priority_levels")
    head, *rows = text.splitlines()
    assert status == 200 and head.startswith("PriorityLevelName, ActiveQueues, IsIdle, IsQuiescing, WaitingRequests,")
    assert [row.split(",")[0] for row in rows] == sorted(row.split(",")[0] for row in rows) and len(rows) == 8
    assert "workload-low,      0,            true,   false,       0,               0,                 0," in text
    status, text = await ask(guarded, f"{DUMP}queues")
    assert status == 200 and text.count("\nworkload-low,") == 128


async def test_who_waits(guarded: Guarded) -> None:
    keeper = guarded.server.flow
    assert keeper is not None
    await ask(guarded, f"{DUMP}requests")
    level = keeper.levels["workload-low"]  # type: ignore[attr-defined]
    level.grant(1)
    level.sit(1)
    async with Tasks() as tasks:
        tasks.spawn(level.wait(level.hand("service-accounts", "me"), 1, 60.0, "service-accounts", "me", 1.5e9), "waits")
        while not level.waiting:
            await turn()
        _, text = await ask(guarded, f"{DUMP}requests")
        head, row = text.splitlines()
        assert [cell.strip() for cell in head.split(",")][:5] == [
            "PriorityLevelName", "FlowSchemaName", "QueueIndex", "RequestIndexInQueue", "FlowDistingsher",
        ]  # fmt: skip
        cells = [cell.strip() for cell in row.split(",")]
        assert (cells[:2], cells[4:7]) == (
            ["workload-low", "service-accounts"], ["me", "2017-07-14T02:40:00.000000Z", "1"]
        )  # fmt: skip
        level.rise(1)


async def test_verbosity(guarded: Guarded) -> None:
    log = logging.getLogger("steersman.test.debugging")
    assert await ask(guarded, "/debug/flags/v", "PUT", b"5") == (
        200, "successfully set klog.logging.verbosity to 5\n"
    )  # fmt: skip
    assert log.level == logging.DEBUG
    assert (await ask(guarded, "/debug/flags/v", "PUT", b"2"))[0] == 200 and log.level == logging.INFO
    assert await ask(guarded, "/debug/flags/v", "PUT", b"x") == (
        400, 'strconv.ParseUint: parsing "x": invalid syntax\n'
    )  # fmt: skip
    assert await ask(guarded, "/debug/flags/v") == (406, "unsupported http method\n")
    assert "<tr>v<br>" in (await ask(guarded, "/debug/flags"))[1]


async def test_no_profiler_of_go(guarded: Guarded) -> None:
    assert (await ask(guarded, "/debug/pprof/heap"))[0] == 404
