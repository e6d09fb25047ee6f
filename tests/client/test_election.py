from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import CONFIGMAPS, LEASES
from steersman.api.term import HEADER
from steersman.client.client import Client
from steersman.client.election import Election, LeadershipLost, Terms
from steersman.lib.tasks import Tasks
from steersman.testing.cluster import ApiCluster
from steersman.testing.objects import config_map

from .test_informer import Broken


def candidate(cluster: ApiCluster, identity: str, transport: Broken | None = None) -> Election:
    client = Client(transport, clock=cluster.clock, user_agent="t") if transport else cluster.client  # type: ignore[arg-type]
    return Election(
        client, clock=cluster.clock, random=Random(1), namespace="kube-system", name="test", identity=identity
    )


def leading(who: str, leaders: list[str]) -> Callable[[], Awaitable[None]]:
    async def work() -> None:
        leaders.append(who)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            leaders.remove(who)

    return work


async def test_one_leads_and_gives_back_when_it_stops(cluster: ApiCluster, tasks: Tasks) -> None:
    leaders: list[str] = []
    first = tasks.spawn(candidate(cluster, "one").lead(leading("one", leaders)), "one")
    await cluster.clock.sleep(1)
    tasks.spawn(candidate(cluster, "two").lead(leading("two", leaders)), "two")
    await cluster.clock.sleep(120)
    assert leaders == ["one"]
    lease = await cluster.client.get(LEASES, "test", "kube-system")
    assert lease["spec"]["holderIdentity"] == "one"
    assert lease["spec"]["leaseTransitions"] == 0
    first.cancel()
    await cluster.clock.sleep(6)
    assert leaders == ["two"], "the lease was given back, so nobody waited for it to run out"
    assert (await cluster.client.get(LEASES, "test", "kube-system"))["spec"]["leaseTransitions"] == 1


async def test_a_leader_that_cannot_renew_stops_before_another_starts(cluster: ApiCluster, tasks: Tasks) -> None:
    leaders: list[str] = []
    wire = Broken(cluster.transport)
    first = asyncio.ensure_future(candidate(cluster, "one", wire).lead(leading("one", leaders)))
    await cluster.clock.sleep(1)
    tasks.spawn(candidate(cluster, "two").lead(leading("two", leaders)), "two")
    await cluster.clock.sleep(30)
    wire.down = True
    for _ in range(60):
        assert len(leaders) <= 1
        await cluster.clock.sleep(0.5)
    assert leaders == ["two"]
    with pytest.raises(LeadershipLost):
        await first


async def test_work_that_ends_ends_the_election(cluster: ApiCluster) -> None:
    async def work() -> None:
        await cluster.clock.sleep(5)

    await candidate(cluster, "one").lead(work)
    assert (await cluster.client.get(LEASES, "test", "kube-system"))["spec"].get("holderIdentity", "") == ""


async def test_terms_under_which_two_could_lead_are_refused(cluster: ApiCluster) -> None:
    for terms in (Terms(lease=10, renew=10), Terms(lease=15, renew=2, retry=2)):
        with pytest.raises(ValueError, match="must be greater"):
            Election(
                cluster.client, clock=cluster.clock, random=Random(), namespace="x", name="y", identity="z", terms=terms
            )


async def test_a_leader_renews_with_one_request_and_notices_what_others_write(
    cluster: ApiCluster, tasks: Tasks
) -> None:
    leaders: list[str] = []
    tasks.spawn(candidate(cluster, "one").lead(leading("one", leaders)), "one")
    await cluster.clock.sleep(1)
    before = cluster.store.revision
    await cluster.client.patch(LEASES, "test", "kube-system", {"metadata": {"labels": {"a": "b"}}})
    await cluster.clock.sleep(20)
    assert leaders == ["one"]
    assert (await cluster.client.get(LEASES, "test", "kube-system"))["metadata"]["labels"] == {"a": "b"}
    assert cluster.store.revision - before <= 11


async def test_a_term_ends_when_the_lease_is_taken_even_under_the_same_name(cluster: ApiCluster, tasks: Tasks) -> None:
    """A process that hangs, and its successor: nothing that the former still asks for is done."""
    leaders: list[str] = []
    first, second = candidate(cluster, "one"), candidate(cluster, "one")
    older = asyncio.ensure_future(first.lead(leading("first", leaders)))
    await cluster.clock.sleep(3)
    writer = cluster.client.leading(first.term)
    made = await writer.create(CONFIGMAPS, config_map("a"), "default")
    tasks.spawn(second.lead(leading("second", leaders)), "second")
    await cluster.clock.sleep(0.1)
    assert first.term != second.term
    refused = [
        writer.create(CONFIGMAPS, config_map("b"), "default"),
        writer.update(CONFIGMAPS, {**made, "data": {"a": "b"}}),
        writer.patch(CONFIGMAPS, "a", "default", {"data": {"a": "b"}}),
        writer.delete(CONFIGMAPS, "a", "default"),
    ]
    for each in refused:
        with pytest.raises(ApiError, match="does not lead any more") as failure:
            await each
        assert (failure.value.code, failure.value.reason) == (409, "Conflict")
    await cluster.client.leading(second.term).delete(CONFIGMAPS, "a", "default")
    with pytest.raises(LeadershipLost):
        await older
    await cluster.clock.sleep(60)
    assert leaders == ["second"], "the older gave back nothing that is not his"


async def test_a_term_outlives_renewals_and_a_lease_that_somebody_deletes(cluster: ApiCluster, tasks: Tasks) -> None:
    election = candidate(cluster, "one")
    tasks.spawn(election.lead(leading("one", [])), "one")
    await cluster.clock.sleep(3)
    writer = cluster.client.leading(election.term)
    await cluster.client.delete(LEASES, "test", "kube-system")
    with pytest.raises(ApiError, match="does not lead any more"):
        await writer.create(CONFIGMAPS, config_map("a"), "default")
    await cluster.clock.sleep(30)
    await writer.create(CONFIGMAPS, config_map("a"), "default")


@pytest.mark.parametrize("text", ["", "a", "a/b/c", "a/b/c/", "a/b/c/d/e", "///"])
async def test_a_header_that_names_no_term_is_refused(cluster: ApiCluster, text: str) -> None:
    client = Client(cluster.transport, clock=cluster.clock, user_agent="t", headers=[(HEADER, text)])
    with pytest.raises(ApiError, match="must name a lease") as failure:
        await client.create(CONFIGMAPS, config_map("a"), "default")
    assert failure.value.code == 400
