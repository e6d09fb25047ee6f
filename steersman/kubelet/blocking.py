"""File work away from the event loop, never left half done.

Owns one function. A directory on a busy disk takes milliseconds to make, and thirty pods start at once; cancelling the
caller waits for the thread, so that clean-up never races with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """The result of `work`, done in a thread; when cancelled, only after the thread is done."""
    task = asyncio.ensure_future(asyncio.to_thread(work, *args, **named))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()
        raise
