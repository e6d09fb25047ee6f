"""Every store passes the contract suite."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from steersman.lib.clock import SystemClock
from steersman.store.etcd.store import EtcdStore
from steersman.store.interface import Event, Store
from steersman.store.memory import MemoryStore
from steersman.store.sqlite import SqliteStore
from steersman.testing import guarantees
from steersman.testing.etcd import Etcd
from steersman.testing.suites import store as suite


@pytest.fixture(params=["memory", "sqlite", "etcd"])
async def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "etcd":
            etcd = await stack.enter_async_context(Etcd(tmp_path))
            store: Store = await EtcdStore.open(etcd.servers, SystemClock())
        else:
            store = MemoryStore() if request.param == "memory" else await SqliteStore.open(tmp_path / "store.db")
        stack.push_async_callback(store.close)
        yield store


@pytest.mark.parametrize("check", suite.CHECKS, ids=lambda check: check.__name__)
async def test_contract(fresh: Store, check: Callable[[Store], Awaitable[None]]) -> None:
    await check(fresh)


def _event(revision: int, key: str = "/a") -> Event:
    return Event(key, revision, b"x", None)


@pytest.mark.parametrize(
    ("batches", "broken"),
    [
        ([[_event(3)], [_event(2)]], "ordered"),
        ([[_event(2), _event(2)]], "unique"),
        ([[_event(2, "/a")], [_event(2, "/b")]], "atomic"),
        ([[_event(2)], [_event(4)]], "reliable"),
        ([[_event(3)]], "resumable"),
        ([[_event(1)]], "bookmarkable"),
    ],
)
def test_each_checker_can_fail(batches: list[list[Event]], broken: str) -> None:
    recording = guarantees.Recording("/", 1, batches)
    truth = [_event(2), _event(3)]
    check = getattr(guarantees, broken)
    found = check(recording, truth) if broken in ("reliable", "resumable") else check(recording)
    assert found
