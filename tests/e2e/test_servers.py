"""Three API server processes on three etcd members: each is killed, then frozen, under load, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import CONFIGMAPS, Object
from steersman.client.client import Client
from steersman.cluster.process import transport, until_ready
from steersman.cluster.profile import Profile, load
from steersman.cluster.supervisor import processes
from steersman.lib.clock import SystemClock
from steersman.lib.tasks import Tasks
from steersman.store.etcd.store import EtcdStore
from steersman.store.interface import Event
from steersman.testing import guarantees
from steersman.testing.etcd import Etcd
from steersman.testing.guarantees import Recording
from tests.e2e.conftest import Steer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CLOCK = SystemClock()
PREFIX = "/core/configmaps/default/load-"
LABELS = {"load": "yes"}


@dataclass
class Load:
    """Creates through every server, and watches there, until it is over."""

    acknowledged: dict[str, int] = field(default_factory=dict)
    unknown: int = 0
    over: bool = False

    async def write(self, client: Client, number: int) -> None:
        step = 0
        while not self.over:
            step += 1
            name = f"load-{number}-{step}"
            meta: Object = {"name": name, "namespace": "default", "labels": LABELS}
            try:
                made = await client.create(CONFIGMAPS, {"metadata": meta}, "default")
                self.acknowledged[name] = int(made["metadata"]["resourceVersion"])
            except (OSError, TimeoutError, ApiError):
                self.unknown += 1  # whether it was written is not known
                await CLOCK.sleep(0.02)

    async def watch(self, client: Client, recording: Recording) -> None:
        """Go on where the watch ended, as a client does."""
        newest = recording.after
        while True:
            try:
                events = client.watch(
                    CONFIGMAPS, "default", resource_version=str(newest), labels="load=yes", bookmarks=False
                )
                async for event in events:
                    meta = event.object["metadata"]
                    newest = int(meta["resourceVersion"])
                    recording.batches.append([Event(f"/core/configmaps/default/{meta['name']}", newest, b"", None)])
            except (OSError, TimeoutError, ApiError):
                await CLOCK.sleep(0.02)

    async def progress(self, numbers: tuple[int, ...], count: int = 15) -> None:
        """Wait until `count` more writes were acknowledged by each of these servers."""
        wanted = {number: self._by(number) + count for number in numbers}
        while any(self._by(number) < enough for number, enough in wanted.items()):
            await CLOCK.sleep(0.02)

    def _by(self, number: int) -> int:
        return sum(name.startswith(f"load-{number}-") for name in self.acknowledged)


async def _harm(profile: Profile, fault: str) -> int:
    pid = processes(profile.run)["apiserver"]
    os.kill(pid, signal.SIGKILL if fault == "kill" else signal.SIGSTOP)
    return pid


def _up(steer: Steer, urls: list[str]) -> Profile:
    alone = "--extra-config=controller-manager.controllers=-*"  # three would have one authority each to publish
    steer("up", "--nodes", "0", alone, f"--extra-config=apiserver.etcd-servers={','.join(urls)}")
    profile = load("steer", steer.home)
    assert profile is not None
    return profile


@pytest.mark.parametrize("fault", ["kill", "freeze"])
async def test_each_server_in_turn(make_steer: Callable[[], Steer], tmp_path: Path, fault: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        etcd = await stack.enter_async_context(Etcd(tmp_path, 3))
        urls = list(etcd.servers.urls)
        homes = [make_steer() for _ in range(3)]
        for home in homes:
            stack.push_async_callback(asyncio.to_thread, home.run, "delete")
        profiles = [await asyncio.to_thread(_up, home, urls[n:] + urls[:n]) for n, home in enumerate(homes)]
        clients = []
        for profile in profiles:
            for _ in range(2):  # one writes, one watches
                made = transport(profile, "admin")
                stack.push_async_callback(made.close)
                clients.append(Client(made, clock=CLOCK, user_agent="test"))
        writers, watchers = clients[::2], clients[1::2]
        for client in writers:
            await until_ready(client, CLOCK)
        truth_store = await EtcdStore.open(etcd.servers, CLOCK)
        stack.push_async_callback(truth_store.close)
        after = truth_store.revision
        recordings = [Recording(PREFIX, after) for _ in watchers]
        loaded = Load()
        tasks = await stack.enter_async_context(Tasks())
        for client, recording in zip(watchers, recordings, strict=True):
            tasks.spawn(loaded.watch(client, recording), "watch")
        async with asyncio.timeout(200), asyncio.TaskGroup() as group:
            for number, client in enumerate(writers):
                group.create_task(loaded.write(client, number))
            for number, profile in enumerate(profiles):
                await loaded.progress((0, 1, 2))
                pid = await _harm(profile, fault)
                await loaded.progress(tuple({0, 1, 2} - {number}))
                if fault == "freeze":
                    os.kill(pid, signal.SIGCONT)
            await loaded.progress((0, 1, 2))
            loaded.over = True
        events: list[Event] = []
        (await truth_store.watch(PREFIX, after, events.extend))()
        truth = [Event(event.key, event.revision, b"", None) for event in events]
        async with asyncio.timeout(30):
            while any(len(recording.events) < len(truth) for recording in recordings):
                await CLOCK.sleep(0.02)
        for recording in recordings:
            for check in (guarantees.ordered, guarantees.unique, guarantees.bookmarkable):
                assert check(recording) == []
            assert guarantees.reliable(recording, truth) == []
            assert guarantees.resumable(recording, truth) == []
        for client in writers:
            listed = (await client.list(CONFIGMAPS, "default", labels="load=yes")).items
            found = {each["metadata"]["name"]: int(each["metadata"]["resourceVersion"]) for each in listed}
            assert loaded.acknowledged.items() <= found.items()
