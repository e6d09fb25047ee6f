"""Run an async test of a simulated node in virtual time."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from steersman.lib.virtualtime import VirtualLoop

from .world import World


def virtual(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A test that takes a `world` becomes one that pytest calls with `tmp_path`."""

    async def run(directory: Path, arguments: dict[str, Any]) -> None:
        await test(World(directory), **arguments)

    @functools.wraps(test)
    def called(tmp_path: Path, **arguments: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(run(tmp_path, arguments))

    others = [each for each in inspect.signature(test).parameters.values() if each.name != "world"]
    first = inspect.Parameter("tmp_path", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    called.__signature__ = inspect.Signature([first, *others])  # type: ignore[attr-defined]
    del called.__wrapped__  # type: ignore[attr-defined]
    return called
