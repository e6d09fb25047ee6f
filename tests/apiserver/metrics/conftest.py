"""Time is free here: the kubelet is played by the test, in process."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from steersman.lib.virtualtime import VirtualLoop


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[[], VirtualLoop]]:
    """Every test's loop jumps over waiting."""
    return {"virtual": VirtualLoop}
