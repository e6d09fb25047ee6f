"""Events end when nobody has written them for as long as they live."""

from __future__ import annotations

import asyncio

from steersman.api.resource import Object, Resource
from steersman.apiserver.expiry import expire
from steersman.lib.clock import LoopClock
from steersman.lib.tasks import Tasks
from steersman.lib.virtualtime import VirtualLoop
from steersman.testing.cluster import ApiCluster

EVENTS = Resource("", "v1", "events", "Event", True)
HOUR = 3600.0


def event(name: str) -> Object:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
    }


def test_events_end_an_hour_after_their_last_write() -> None:
    async def body() -> None:
        clock = LoopClock()
        async with ApiCluster(clock=clock) as cluster, Tasks() as tasks:
            kind = cluster.server.registry.find("", "events")
            assert kind is not None
            tasks.spawn(expire(cluster.server.storage, kind, clock, HOUR), "expiry")

            async def names() -> list[str]:
                return [each["metadata"]["name"] for each in (await cluster.client.list(EVENTS, "default")).items]

            for number in range(600):
                await cluster.client.create(EVENTS, event(f"old-{number}"), "default")
            await cluster.client.create(EVENTS, event("kept"), "default")
            await clock.sleep(HOUR * 0.8)
            await cluster.client.patch(EVENTS, "kept", "default", {"count": 2})
            await clock.sleep(HOUR * 0.19)
            assert len(await names()) == 601
            await clock.sleep(HOUR * 0.2)
            assert await names() == ["kept"]
            await clock.sleep(HOUR)
            assert await names() == []

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(body())


def test_a_life_of_nothing_is_for_ever() -> None:
    async def body() -> None:
        clock = LoopClock()
        async with ApiCluster(clock=clock) as cluster:
            kind = cluster.server.registry.find("", "events")
            assert kind is not None
            assert await expire(cluster.server.storage, kind, clock, 0) is None

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(body())
