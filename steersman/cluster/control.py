"""The process of controllers and scheduler.

Owns their wiring: two clients with their own identities, shared informers, one clock. Called by `components.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from steersman.client.controller import Context
from steersman.client.events import EventRecorder
from steersman.client.informer import Informers
from steersman.cluster import process, scheduling
from steersman.cluster.profile import Profile
from steersman.controllers.run import run_controllers
from steersman.lib.tasks import Tasks

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
    await scheduling.run(profile, scheduling.configuration(profile), profile.run / "scheduler.sock")
