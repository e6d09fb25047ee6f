"""Three API servers on three etcd members, each in a network namespace of its own: each in turn is killed, frozen and
cut off under load; the watch guarantees hold in what was recorded, and no acknowledged write is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import CONFIGMAPS, ENDPOINTS, Object
from steersman.client.client import Client
from steersman.cluster.process import until_ready
from steersman.cluster.profile import Profile, load
from steersman.cluster.supervisor import processes
from steersman.lib.clock import SystemClock
from steersman.lib.http.client import Address, HttpClient, client_tls
from steersman.lib.tasks import Tasks
from steersman.store.etcd.store import EtcdStore
from steersman.store.interface import Event
from steersman.testing import guarantees
from steersman.testing.etcd import Etcd, Member
from steersman.testing.guarantees import Recording
from tests.e2e.conftest import Steer
from tests.e2e.netns import Machine, Net

pytestmark = [pytest.mark.slow, pytest.mark.node, pytest.mark.timeout(300)]

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
                await CLOCK.sleep(0.005)
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

    async def progress(self, numbers: tuple[int, ...], count: int = 10) -> None:
        """Wait until `count` more writes were acknowledged by each of these servers."""
        wanted = {number: self._by(number) + count for number in numbers}
        while any(self._by(number) < enough for number, enough in wanted.items()):
            await CLOCK.sleep(0.02)

    def _by(self, number: int) -> int:
        return sum(name.startswith(f"load-{number}-") for name in self.acknowledged)


@dataclass
class World:
    """What runs, and where."""

    etcd: Etcd
    etcd_machines: list[Machine]
    server_machines: list[Machine]
    profiles: list[Profile]
    writers: list[Client]
    watchers: list[Client]

    def server(self, number: int) -> int:
        """Its process."""
        return processes(self.profiles[number].run)["apiserver"]

    async def harm(self, what: str, number: int) -> Callable[[], None]:
        """Do it; returns what undoes it."""
        member = self.etcd.members[number]
        if what == "kill a member":
            member.kill()
            return member.start
        if what == "kill a server":
            os.kill(self.server(number), signal.SIGKILL)
            return lambda: None  # its supervisor starts it
        if what == "freeze a server":
            pid = self.server(number)
            os.kill(pid, signal.SIGSTOP)
            return lambda: os.kill(pid, signal.SIGCONT)
        machine = (self.etcd_machines if what == "cut off a member" else self.server_machines)[number]
        machine.cut_off()
        return machine.join


def _up(steer: Steer, machine: Machine, urls: list[str]) -> Profile:
    """A control plane in a namespace; its API server is found on the namespace's loopback only."""
    settings = {
        "controller-manager.controllers": "token-cleaner-controller",  # of others, three would have an authority each
        "apiserver.etcd-servers": ",".join(urls),
        "apiserver.advertise-address": machine.address,
    }
    extra = [f"--extra-config={name}={value}" for name, value in settings.items()]
    command = [*machine.prefix, sys.executable, "-m", "steersman.cli", "up", "--nodes", "0", *extra]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=steer.environment, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    profile = load("steer", steer.home)
    assert profile is not None
    return profile


@pytest.fixture
async def world(make_steer: Callable[[], Steer], tmp_path: Path) -> AsyncIterator[World]:
    async with contextlib.AsyncExitStack() as stack:
        machines = stack.enter_context(Net(6)).machines
        hosts, servers = machines[:3], machines[3:]
        members = [
            Member(f"m{at}", tmp_path / f"m{at}", 2379, 2380, host=each.address, prefix=each.prefix)
            for at, each in enumerate(hosts)
        ]
        etcd = await stack.enter_async_context(Etcd(tmp_path, made=members))
        urls = list(etcd.servers.urls)
        homes = [make_steer() for _ in servers]
        for home in homes:
            stack.push_async_callback(asyncio.to_thread, home.run, "delete")
        profiles = [
            await asyncio.to_thread(_up, home, machine, urls[at:] + urls[:at])
            for at, (home, machine) in enumerate(zip(homes, servers, strict=True))
        ]
        clients = []
        for machine, profile in zip(servers, profiles, strict=True):
            pki = profile.pki
            tls = client_tls(authority=pki / "ca.crt", certificate=pki / "admin.crt", key=pki / "admin.key")
            for _ in range(2):  # one writes, one watches
                made = HttpClient(Address("127.0.0.1", profile.api_port, tls), dial=machine.dial)
                stack.push_async_callback(made.close)
                clients.append(Client(made, clock=CLOCK, user_agent="test"))
        for client in clients[::2]:
            await until_ready(client, CLOCK)
        yield World(etcd, hosts, servers, profiles, clients[::2], clients[1::2])


HARMS = ("kill a member", "cut off a member", "kill a server", "freeze a server", "cut off a server")


async def test_each_in_turn(world: World) -> None:
    async with contextlib.AsyncExitStack() as stack:
        truth_store = await EtcdStore.open(world.etcd.servers, CLOCK)
        stack.push_async_callback(truth_store.close)
        after = truth_store.revision
        recordings = [Recording(PREFIX, after) for _ in world.watchers]
        loaded = Load()
        tasks = await stack.enter_async_context(Tasks())
        for client, recording in zip(world.watchers, recordings, strict=True):
            tasks.spawn(loaded.watch(client, recording), "watch")
        async with asyncio.timeout(200), asyncio.TaskGroup() as group:
            for number, client in enumerate(world.writers):
                group.create_task(loaded.write(client, number))
            for harm in HARMS:
                for number in range(3):
                    await loaded.progress((0, 1, 2))
                    heal = await world.harm(harm, number)
                    others = (0, 1, 2) if harm.endswith("member") else tuple({0, 1, 2} - {number})
                    await loaded.progress(others)
                    if harm == "cut off a server":
                        await _nothing_old(world.watchers[number], loaded)
                    heal()
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
        for client in world.writers:
            found = await _listed(client)
            assert loaded.acknowledged.items() <= found.items()
            await _everybody(client, {machine.address for machine in world.server_machines})


async def _everybody(client: Client, addresses: set[str]) -> None:
    """Who was gone for long is back in the endpoints ten seconds after."""
    found: set[str] = set()
    async with asyncio.timeout(30):
        while found != addresses:
            endpoints = await client.get(ENDPOINTS, "kubernetes", "default")
            found = {each["ip"] for each in endpoints["subsets"][0]["addresses"]}
            await CLOCK.sleep(0.05)


async def _listed(client: Client) -> dict[str, int]:
    listed = (await client.list(CONFIGMAPS, "default", labels="load=yes")).items
    return {each["metadata"]["name"]: int(each["metadata"]["resourceVersion"]) for each in listed}


async def _nothing_old(client: Client, loaded: Load) -> None:
    """Who cannot ask the others says so, rather than tell of what may be long past."""
    known = dict(loaded.acknowledged)
    try:
        found = await _listed(client)
    except (OSError, TimeoutError, ApiError):
        return
    assert known.items() <= found.items()
