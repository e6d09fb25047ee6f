"""The machine's clock jumps back or forth: what lasts for a while lasts as long as before, what has a date keeps it."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import NAMESPACES, SERVICEACCOUNTS, Object, Resource
from steersman.apiserver.expiry import expire
from steersman.client.election import Election
from steersman.cluster import certs
from steersman.lib.clock import LoopClock, SystemClock
from steersman.lib.tasks import Tasks
from steersman.lib.virtualtime import VirtualLoop
from steersman.testing.cluster import ApiCluster
from tests.apiserver.guarded import Guarded

HOUR = 3600.0
STEPS = [-HOUR, HOUR, -30 * 24 * HOUR, 30 * 24 * HOUR]
EVENTS = Resource("", "v1", "events", "Event", True)


class Stepped(LoopClock):
    """A clock that somebody sets; how long something takes is measured as ever."""

    step = 0.0

    def now(self) -> float:
        return super().now() + self.step


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(story())


@pytest.mark.parametrize("step", STEPS)
def test_events_live_as_long_as_before(step: float) -> None:
    async def story() -> None:
        clock = Stepped()
        async with ApiCluster(clock=clock) as cluster, Tasks() as tasks:
            kind = cluster.server.registry.find("", "events")
            assert kind is not None
            tasks.spawn(expire(cluster.server.storage, kind, clock, HOUR), "expiry")
            about = {"kind": "Pod", "name": "p", "namespace": "default"}
            event: Object = {"metadata": {"name": "e", "namespace": "default"}, "involvedObject": about}
            await cluster.client.create(EVENTS, event, "default")
            await clock.sleep(HOUR / 2)
            clock.step = step
            await clock.sleep(HOUR / 3)
            assert (await cluster.client.list(EVENTS, "default")).items
            await clock.sleep(HOUR / 2)
            assert not (await cluster.client.list(EVENTS, "default")).items

    run(story)


@pytest.mark.parametrize("step", STEPS)
def test_who_leads_goes_on_and_who_dies_is_followed_in_time(step: float) -> None:
    async def story() -> None:
        clock, leaders = Stepped(), list[str]()
        other = Stepped()
        async with ApiCluster(clock=clock) as cluster, Tasks() as tasks:

            async def lead(who: str, by: Stepped) -> None:
                election = Election(
                    cluster.client, clock=by, random=Random(1), namespace="kube-system", name="x", identity=who
                )

                async def work() -> None:
                    leaders.append(who)
                    await asyncio.get_running_loop().create_future()

                await election.lead(work)

            first = tasks.spawn(lead("one", clock), "one")
            await clock.sleep(5)
            tasks.spawn(lead("two", other), "two")
            clock.step = step
            await clock.sleep(300)
            other.step = step
            await clock.sleep(300)
            assert leaders == ["one"]
            first.cancel()
            await clock.sleep(30)
            assert leaders == ["one", "two"]

    run(story)


class Set(SystemClock):
    """The system's clock, set otherwise."""

    step = 0.0

    def now(self) -> float:
        return super().now() + self.step


async def test_tokens_are_good_from_when_to_when_they_say(tmp_path: Path) -> None:
    clock = Set()
    async with Guarded(tmp_path, clock=clock) as guarded:
        admin = guarded.client("admin")
        await admin.create(SERVICEACCOUNTS, {"metadata": {"name": "robot", "namespace": "default"}})

        async def asked() -> str:
            body = {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"expirationSeconds": 600},
            }
            made = await admin.create(SERVICEACCOUNTS, body, "default", name="robot", subresource="token")
            return str(made["status"]["token"])

        async def works(token: str) -> bool:
            try:
                await guarded.client(token=token).get(NAMESPACES, "default")
            except ApiError as error:
                assert error.code in (401, 403)
                return error.code == 403
            return True

        token = await asked()
        for step, good in [(0, True), (-30, True), (-HOUR, False), (300, True), (HOUR, False), (0, True)]:
            clock.step = step
            assert await works(token) is good, step
            assert await works(await asked())  # a new one always


def test_certificates_are_good_an_hour_before_they_were_made(tmp_path: Path) -> None:
    now = 1_767_225_600
    certs.ensure(tmp_path, certs.identities([], ["127.0.0.1"], "cluster.local"), now)
    for step, good in [(-50 * 60, True), (-2 * 3600, False), (9 * 365 * 86400, True), (11 * 365 * 86400, False)]:
        command = ["openssl", "verify", "-attime", str(now + step), "-CAfile", tmp_path / "ca.crt"]
        done = subprocess.run([*command, tmp_path / "apiserver.crt"], capture_output=True, check=False)
        assert (done.returncode == 0) is good, done.stderr
