"""The endpoints of the kubernetes Service: every server that is there, and nobody for long who is not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from steersman.api.errors import ApiError
from steersman.api.registry import Registry
from steersman.api.resource import ENDPOINTS, ENDPOINTSLICES
from steersman.apiserver.app import ApiServer
from steersman.apiserver.masters import ByCount, ByLease, Masters, publish
from steersman.lib.clock import SystemClock
from steersman.store.interface import StoreUnavailable
from steersman.store.memory import MemoryStore
from steersman.testing.cluster import ApiCluster, NoAdmission, allow_all, everybody_is_admin
from tests.store.kmsserver import HandClock

LEASE = "/core/masterleases/"


class World:
    """Servers on one store, each with an address; the first one answers."""

    def __init__(self, first: ApiCluster, others: list[ApiServer]) -> None:
        self.first, self.store, self.clock = first, first.store, HandClock()
        self.servers = [first.server, *others]

    def by_lease(self, number: int, clock: HandClock | None = None) -> Masters:
        clock = clock or self.clock
        return Masters(self.servers[number], clock, 6443, ByLease(self.store, clock, f"10.0.0.{number + 1}"))

    def by_count(self, number: int, count: int) -> Masters:
        return Masters(self.servers[number], self.clock, 6443, ByCount(f"10.0.0.{number + 1}", count))

    async def addresses(self) -> list[int]:
        """The last parts of the endpoints' addresses, which the slice has too."""
        found = await self.first.client.get(ENDPOINTS, "kubernetes", "default")
        subsets = found.get("subsets") or [{}]
        addresses = [each["ip"] for each in subsets[0].get("addresses") or ()]
        slice_ = await self.first.client.get(ENDPOINTSLICES, "kubernetes", "default")
        assert [each["addresses"] for each in slice_.get("endpoints") or ()] == [[each] for each in addresses]
        assert found["metadata"]["labels"] == {"endpointslice.kubernetes.io/skip-mirror": "true"}
        assert slice_["metadata"]["labels"]["kubernetes.io/service-name"] == "kubernetes"
        return [int(each.rpartition(".")[2]) for each in addresses]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(ApiCluster(clock=SystemClock(), store=MemoryStore()))
        others = []
        for _ in range(2):
            others.append(
                ApiServer(
                    first.store,
                    Registry(),
                    first.clock,
                    admission=NoAdmission(),
                    authenticators=[everybody_is_admin],
                    authorizer=allow_all,
                )
            )
            await others[-1].start()
            stack.push_async_callback(others[-1].close)
        yield World(first, others)


async def test_servers_come_and_leave(world: World) -> None:
    made = [world.by_lease(number) for number in range(3)]
    for number, each in enumerate(made, 1):
        await each.keep()
        assert await world.addresses() == [1, 2, 3][:number]
    await made[1].leave()
    assert await world.addresses() == [1, 3]
    await made[1].keep()  # it has left: it does not come back by a turn that was due
    assert await world.addresses() == [1, 3]


async def test_who_dies_is_gone_after_fifteen_seconds(world: World) -> None:
    one, two = world.by_lease(0), world.by_lease(1)
    await two.keep()
    for _ in range(2):
        await one.keep()
        assert await world.addresses() == [1, 2]
        world.clock.time += 10
    await one.keep()
    assert await world.addresses() == [1]
    assert await world.store.get(f"{LEASE}10.0.0.2") is None
    await two.keep()  # it was only frozen
    assert await world.addresses() == [1, 2]


async def test_leases_of_an_earlier_time_are_forgotten_by_who_starts_alone(world: World) -> None:
    await world.store.create(f"{LEASE}10.0.0.9", b"7")
    one = world.by_lease(0)
    await one.keep()
    assert await world.addresses() == [1, 9]
    world.clock.time += 16
    await one.keep()
    assert await world.addresses() == [1]


async def test_clocks_that_disagree_or_jump_take_nobody_out(world: World) -> None:
    late, early = HandClock(), HandClock()
    late.time, early.time = 1e6, 2e9
    one, two = world.by_lease(0, late), world.by_lease(1, early)
    for _ in range(5):
        await one.keep()
        await two.keep()
        late.time += 10
        early.time += 10
        assert set(await world.addresses()) >= {1}
    assert await world.addresses() == [1, 2]


async def test_a_store_that_does_not_answer_erases_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    one = world.by_lease(0)
    await one.keep()

    async def refuse(*_: object, **__: object) -> None:
        raise StoreUnavailable("no quorum")

    monkeypatch.setattr(world.store, "list", refuse)
    with pytest.raises(StoreUnavailable):
        await one.keep()
    await one.leave()
    assert await world.addresses() == [1]


async def test_by_count_nobody_but_too_many_is_taken_out(world: World) -> None:
    for number in range(2):
        await world.by_count(number, 2).keep()
    world.clock.time += 600
    await world.by_count(0, 2).keep()
    assert await world.addresses() == [1, 2]
    await world.by_count(2, 2).keep()
    assert await world.addresses() == [2, 3]
    await world.by_count(2, 2).leave()
    assert await world.addresses() == [2]


async def test_a_loopback_address_is_not_published(world: World) -> None:
    await publish(world.first.server, ["127.0.0.1"], 6443)
    with pytest.raises(ApiError):
        await world.first.client.get(ENDPOINTS, "kubernetes", "default")
