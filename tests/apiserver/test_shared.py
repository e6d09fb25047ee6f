"""Two API servers on one etcd: each sees at once what was acknowledged by the other, and both keep one set of books."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from steersman.api.errors import ApiError
from steersman.api.registry import Registry
from steersman.api.resource import CONFIGMAPS, SERVICES, Object, Resource
from steersman.apiserver.app import ApiServer
from steersman.apiserver.ipalloc import Allocator
from steersman.apiserver.reservations import Reservations
from steersman.client.client import Client
from steersman.client.transport import InProcess
from steersman.lib.clock import SystemClock
from steersman.lib.tasks import Tasks
from steersman.store.etcd.store import EtcdStore
from steersman.testing.cluster import ApiCluster, NoAdmission, allow_all, everybody_is_admin
from steersman.testing.etcd import Etcd

CLOCK = SystemClock()
NETWORK, PORTS = IPv4Network("10.96.0.0/27"), (30000, 30029)  # 30 of each


@dataclass
class Pair:
    etcd: Etcd
    store: EtcdStore
    clients: list[Client]

    @property
    def one(self) -> Client:
        return self.clients[0]

    @property
    def two(self) -> Client:
        return self.clients[1]


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        etcd = await stack.enter_async_context(Etcd(tmp_path))
        tasks = await stack.enter_async_context(Tasks())
        first = await stack.enter_async_context(
            ApiCluster(clock=CLOCK, store=await EtcdStore.open(etcd.servers, CLOCK))
        )
        other = await EtcdStore.open(etcd.servers, CLOCK)
        stack.push_async_callback(other.close)
        second = ApiServer(
            other, Registry(), CLOCK, admission=NoAdmission(), authenticators=[everybody_is_admin], authorizer=allow_all
        )
        await second.start()
        stack.push_async_callback(second.close)
        for server in (first.server, second):
            books = Reservations(server.storage.store, CLOCK, tasks)
            await Allocator(server, NETWORK, PORTS, reservations=books).attach()
        yield Pair(etcd, other, [first.client, Client(InProcess(second.handle), clock=CLOCK, user_agent="two")])


def config(name: str, **data: str) -> Object:
    return {"metadata": {"name": name, "namespace": "default"}, "data": data}


def service(name: str, **spec: object) -> Object:
    return {"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": [{"port": 80}], **spec}}


async def test_what_one_acknowledged_the_other_shows(pair: Pair) -> None:
    for number in range(20):
        await pair.one.create(CONFIGMAPS, config(f"c{number}"), "default")
        assert (await pair.two.get(CONFIGMAPS, f"c{number}", "default"))["metadata"]["name"] == f"c{number}"
        changed = await pair.two.update(CONFIGMAPS, config(f"c{number}", n=str(number)))
        assert await pair.one.get(CONFIGMAPS, f"c{number}", "default") == changed
        await pair.one.delete(CONFIGMAPS, f"c{number}", "default")
        with pytest.raises(ApiError, match="not found"):
            await pair.two.get(CONFIGMAPS, f"c{number}", "default")


async def test_of_two_writers_one_is_told_of_the_other(pair: Pair) -> None:
    made = await pair.one.create(CONFIGMAPS, config("c"), "default")
    found = await asyncio.gather(
        *(each.update(CONFIGMAPS, {**made, "data": {"by": str(at)}}) for at, each in enumerate(pair.clients)),
        return_exceptions=True,
    )
    lost = [each for each in found if isinstance(each, ApiError)]
    assert [error.reason for error in lost] == ["Conflict"] and len(found) == 2
    with pytest.raises(ApiError, match="already exists"):
        await pair.two.create(CONFIGMAPS, config("c"), "default")


async def test_a_watch_tells_of_the_other_ones_writes_and_goes_on_at_either(pair: Pair) -> None:
    seen = []
    made = await pair.one.create(CONFIGMAPS, config("a"), "default")
    await pair.one.create(CONFIGMAPS, config("b"), "default")
    version = made["metadata"]["resourceVersion"]
    async with asyncio.timeout(10):
        async for event in pair.two.watch(CONFIGMAPS, "default", resource_version=version, bookmarks=False):
            seen.append((event.type, event.object["metadata"]["name"]))
            if len(seen) == 1:
                await pair.one.delete(CONFIGMAPS, "a", "default")
            else:
                break
    assert seen == [("ADDED", "b"), ("DELETED", "a")]


async def test_each_server_makes_and_deletes_the_ipaddresses_of_its_writes(pair: Pair) -> None:
    addresses = Resource("networking.k8s.io", "v1", "ipaddresses", "IPAddress", namespaced=False)
    gate = {"parentRef": {"resource": "gateways", "namespace": "default", "name": "gate"}}
    await pair.one.create(addresses, {"metadata": {"name": "10.96.0.7"}, "spec": gate})
    made = await asyncio.gather(
        *(pair.clients[number % 2].create(SERVICES, service(f"s{number}"), "default") for number in range(10))
    )
    given = {each["spec"]["clusterIP"] for each in made}
    for client in pair.clients:
        names = {each["metadata"]["name"] for each in (await client.list(addresses)).items}
        assert names == given | {"10.96.0.7"} and len(names) == 11
        with pytest.raises(ApiError, match="provided IP is already allocated"):
            await client.create(SERVICES, service("x", clusterIP="10.96.0.7", clusterIPs=["10.96.0.7"]), "default")
    for number in range(10):
        await pair.clients[(number + 1) % 2].delete(SERVICES, f"s{number}", "default")
    for client in pair.clients:
        assert [each["metadata"]["name"] for each in (await client.list(addresses)).items] == ["10.96.0.7"]


async def test_an_address_is_given_out_once(pair: Pair) -> None:
    async def make(number: int) -> Object:
        return await pair.clients[number % 2].create(SERVICES, service(f"s{number}"), "default")

    for _ in range(2):  # the second time they are those that were given back
        made = await asyncio.gather(*(make(number) for number in range(30)))
        assert len({each["spec"]["clusterIP"] for each in made}) == 30
        assert len({each["spec"]["ports"][0]["nodePort"] for each in made}) == 30
        with pytest.raises(ApiError, match="range is full"):
            await pair.two.create(SERVICES, service("one-more"), "default")
        for number in range(30):
            await pair.clients[number % 2].delete(SERVICES, f"s{number}", "default")
        async with asyncio.timeout(20):  # reservations end soon after their Service
            while (await pair.store.list("/core/serviceranges/")).entries:
                await CLOCK.sleep(0)


async def test_what_another_held_for_a_moment_is_not_missed(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    ports = {
        (await pair.one.create(SERVICES, service(f"s{number}"), "default"))["spec"]["ports"][0]["nodePort"]
        for number in range(29)
    }
    [last] = {*range(PORTS[0], PORTS[1] + 1)} - ports
    key = f"/core/serviceranges/{last}"
    held = await pair.store.create(key, b"another 0")
    refused, take = asyncio.Event(), Reservations.take

    async def watched(self: Reservations, claims: Iterable[str | int], uid: str) -> list[str | int]:
        lost = await take(self, claims, uid)
        if lost:
            refused.set()
        return lost

    monkeypatch.setattr(Reservations, "take", watched)
    async with asyncio.TaskGroup() as group:
        making = group.create_task(pair.one.create(SERVICES, service("last"), "default"))
        await refused.wait()
        await pair.store.delete(key, held)
    assert making.result()["spec"]["ports"][0]["nodePort"] == last


async def test_a_chosen_address_is_refused_to_the_second(pair: Pair) -> None:
    found = await asyncio.gather(
        *(
            each.create(SERVICES, service(f"s{at}", clusterIP="10.96.0.9"), "default")
            for at, each in enumerate(pair.clients)
        ),
        return_exceptions=True,
    )
    lost = [str(each) for each in found if isinstance(each, ApiError)]
    assert len(lost) == 1 and "provided IP is already allocated" in lost[0]


async def test_without_etcd_requests_fail_and_then_go_on(pair: Pair) -> None:
    await pair.one.create(CONFIGMAPS, config("a"), "default")
    pair.etcd.members[0].kill()
    for verb in (pair.one.get(CONFIGMAPS, "a", "default"), pair.two.create(CONFIGMAPS, config("b"), "default")):
        with pytest.raises(ApiError, match="etcd") as error:
            await verb
        assert error.value.code == 500
    pair.etcd.members[0].start()
    await pair.etcd.members[0].ready(CLOCK)
    await pair.one.create(CONFIGMAPS, config("c"), "default")
    assert [each["metadata"]["name"] for each in (await pair.two.list(CONFIGMAPS, "default")).items] == ["a", "c"]
