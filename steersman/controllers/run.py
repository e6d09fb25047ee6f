"""Running controllers: the chosen ones side by side on one loop, sharing informers.

Owns nothing but their tasks. Called by `cluster` and by tests; it ends when it is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from steersman.client.controller import Context, run
from steersman.controllers import load, select
from steersman.lib.tasks import Tasks


async def run_controllers(context: Context, names: Iterable[str] = ("*",)) -> None:
    """Run the controllers that `names` selects (see `controllers.select`) until cancelled. Raises ValueError."""
    chosen = [load(name) for name in select(names)]
    async with Tasks() as tasks:
        for controller in chosen:
            tasks.spawn(run(controller, context), controller.name)
        await asyncio.get_running_loop().create_future()
