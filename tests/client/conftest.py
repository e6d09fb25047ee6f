"""The real API server in process, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from steersman.lib.tasks import Tasks
from steersman.lib.virtualtime import VirtualLoop
from steersman.testing.cluster import ApiCluster


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[[], VirtualLoop]]:
    """Every test's loop jumps over waiting."""
    return {"virtual": VirtualLoop}


@pytest_asyncio.fixture
async def cluster() -> AsyncIterator[ApiCluster]:
    async with ApiCluster() as running:
        yield running


@pytest_asyncio.fixture
async def tasks() -> AsyncIterator[Tasks]:
    async with Tasks() as running:
        yield running
