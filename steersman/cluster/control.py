"""The process of controllers and scheduler.

Owns their wiring: two clients with their own identities, shared informers, one clock. Called by `components.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from steersman.api.resource import NODES
from steersman.client.controller import Context
from steersman.client.events import EventRecorder
from steersman.client.informer import Informer, Informers
from steersman.cluster import process, scheduling
from steersman.cluster.profile import Profile
from steersman.controllers.run import run_controllers
from steersman.lib.http.server import Server
from steersman.lib.tasks import Tasks
from steersman.scheduler.endpoint import Endpoint

_AUTHORITY = {"root-ca": "ca.crt", "root-ca-key": "ca.key"}


def main(profile: Profile, ready: Callable[[], None]) -> None:
    """The process's whole life."""
    process.serve(lambda stop: _run(profile, ready, stop))


async def _run(profile: Profile, ready: Callable[[], None], stop: asyncio.Event) -> None:
    async with Tasks() as tasks:
        tasks.spawn(_controllers(profile), "controllers")
        tasks.spawn(_scheduler(profile), "scheduler")
        ready()
        await stop.wait()


async def _controllers(profile: Profile) -> None:
    async with (
        process.client(profile, "controller-manager", "kube-controller-manager") as (client, clock),
        Tasks() as tasks,
    ):
        recorder = EventRecorder(client, clock, tasks, component="controllermanager")
        informers = Informers(client, clock=clock, tasks=tasks)
        authority = {name: (profile.pki / file).read_text() for name, file in _AUTHORITY.items()}
        config = {**profile.options("controller-manager"), **authority}
        config["volumes"] = str(profile.volumes) if profile.nodes else ""
        context = Context(client, informers, clock, recorder, process.random(), config)
        await run_controllers(context, config.get("controllers", "*").split(","))


async def _scheduler(profile: Profile) -> None:
    async with process.client(profile, "scheduler", "kube-scheduler") as (client, clock), Tasks() as tasks:
        informers = Informers(client, clock=clock, tasks=tasks)
        await _first(informers.informer(NODES))  # a control plane alone has nowhere to put a pod
        loop = asyncio.get_running_loop()
        module = await loop.run_in_executor(None, _load_scheduler)
        configuration = scheduling.configuration(profile)
        recorder = EventRecorder(client, clock, tasks, component=module.DEFAULT_NAME)
        scheduler = module.Scheduler(client, informers, recorder, clock, process.random(), configuration)
        async with Server(Endpoint(scheduler.explain).handle, clock) as server:
            await server.listen_unix(profile.run / "scheduler.sock")
            await scheduler.run()


async def _first(informer: Informer) -> None:
    """Wait for the first object."""
    there = asyncio.Event()
    informer.add_handler(lambda old, new: there.set())
    await there.wait()


def _load_scheduler() -> Any:
    """NumPy takes a third of a second to import: in a thread, while the controllers start."""
    from steersman.scheduler import scheduler

    return scheduler
