"""Metrics of the store: what was asked of it, for which resource, and what it failed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from steersman.apiserver.telemetry.storing import Measured
from steersman.store.interface import KeyExists, Store, StoreUnavailable
from steersman.store.memory import MemoryStore
from steersman.store.sqlite import SqliteStore
from steersman.testing.suites import store as suite


@pytest.mark.parametrize("check", suite.CHECKS, ids=lambda check: check.__name__)
async def test_it_is_a_store(check: Callable[[Store], Awaitable[None]]) -> None:
    await check(Measured(MemoryStore(), lambda: 0.0))


async def test_requests_are_counted_by_resource() -> None:
    times = iter(range(1_000))
    store = Measured(MemoryStore(), lambda: float(next(times)))
    first = await store.create("/core/pods/default/a", b"x")
    with pytest.raises(KeyExists):  # an answer, and no failure
        await store.create("/core/pods/default/a", b"x")
    await store.update("/apps/deployments/default/a", b"x", await store.create("/apps/deployments/default/a", b""))
    await store.list("/core/pods/", limit=1)
    await store.get("/health")
    await store.delete("/core/pods/default/a", first)
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.get("/core/pods/default/a")
    lines = store.metrics.text().splitlines()
    pods = 'group="",resource="pods"'
    for line in (
        'etcd_requests_total{group="",operation="create",resource="pods"} 2',
        'etcd_requests_total{group="",operation="delete",resource="pods"} 1',
        'etcd_requests_total{group="apps",operation="update",resource="deployments"} 1',
        'etcd_request_errors_total{group="",operation="get",resource="pods"} 1',
        'etcd_requests_total{group="",operation="get",resource=""} 1',
        'etcd_request_duration_seconds_sum{group="",operation="create",resource="pods"} 2',
        'etcd_request_duration_seconds_bucket{group="",operation="create",resource="pods",le="0.8"} 0',
        f"apiserver_storage_list_total{{{pods}}} 1",
        f"apiserver_storage_list_fetched_objects_total{{{pods}}} 1",
    ):
        assert line in lines
    assert not any(line.startswith('etcd_request_errors_total{group="",operation="create"') for line in lines)


async def test_files_have_a_size(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    measured = Measured(store, lambda: 0.0)
    before = store.size()
    await measured.create("/core/pods/default/a", bytes(100_000))
    [line] = [line for line in measured.metrics.text().splitlines() if line.startswith("apiserver_storage_size_bytes{")]
    assert float(line.split()[1]) >= before + 100_000
    await measured.close()
    assert "apiserver_storage_size_bytes" not in Measured(MemoryStore(), lambda: 0.0).metrics.text()
