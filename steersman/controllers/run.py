"""Running controllers: the chosen ones side by side on one loop, sharing informers.

Owns nothing but their tasks. Called by `cluster` and by tests; it ends when it is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from steersman.client.controller import Context, Controller, run
from steersman.controllers import load, select
from steersman.lib.tasks import Tasks


def chosen(names: Iterable[str], config: Mapping[str, str]) -> list[Controller]:
    """Those that `names` selects (see `controllers.select`) and the settings want.

    Raises ValueError for a name that no controller has and for settings that cannot be.
    """
    return [found for name in select(names) if (found := load(name)).asked_for(config)]


async def run_controllers(context: Context, names: Iterable[str] = ("*",)) -> None:
    """Run the controllers that are `chosen` until cancelled. Raises ValueError."""
    wanted = chosen(names, context.config)
    async with Tasks() as tasks:
        for controller in wanted:
            tasks.spawn(run(controller, context), controller.name)
        await asyncio.get_running_loop().create_future()
