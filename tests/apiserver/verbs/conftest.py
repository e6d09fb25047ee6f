"""These tests run in virtual time, so that a watch's timeout costs nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from steersman.lib.virtualtime import VirtualLoop
from steersman.testing.cluster import ApiCluster


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[[], VirtualLoop]]:
    """The loop of every test here."""
    return {"virtual": VirtualLoop}


@pytest.fixture
async def cluster() -> AsyncIterator[ApiCluster]:
    async with ApiCluster() as made:
        yield made
