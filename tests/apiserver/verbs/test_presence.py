"""The Leases of API servers."""

from __future__ import annotations

import asyncio

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import LEASES
from steersman.apiserver.presence import LABEL, NAMESPACE, Presence, identity
from steersman.testing.cluster import ApiCluster


async def test_a_server_renews_its_lease_and_removes_those_of_others_that_are_gone() -> None:
    async with ApiCluster() as cluster:
        meta = {"namespace": NAMESPACE, "labels": {LABEL: "kube-apiserver"}}
        await cluster.client.create(LEASES, {"metadata": {"name": "nobody", **meta}, "spec": {}})
        other = Presence(cluster.server, cluster.clock, "there", 1, "u")
        await other.renew()
        kept = {"metadata": {"name": "leader", "namespace": NAMESPACE}, "spec": {}}
        await cluster.client.create(LEASES, kept)
        task = asyncio.ensure_future(Presence(cluster.server, cluster.clock, "here", 6443, "u1").run())
        await cluster.clock.sleep(25)
        name = identity("here", 6443)
        lease = await cluster.client.get(LEASES, name, NAMESPACE)
        assert lease["metadata"]["labels"] == {LABEL: "kube-apiserver", "kubernetes.io/hostname": "here"}
        assert lease["spec"]["holderIdentity"] == f"{name}_u1" and lease["spec"]["leaseDurationSeconds"] == 3600
        before = lease["spec"]["renewTime"]
        await cluster.clock.sleep(10)
        assert (await cluster.client.get(LEASES, name, NAMESPACE))["spec"]["renewTime"] > before
        await cluster.clock.sleep(3600)
        with pytest.raises(ApiError):
            await cluster.client.get(LEASES, "nobody", NAMESPACE)
        await cluster.clock.sleep(3600)
        left = {each["metadata"]["name"] for each in (await cluster.client.list(LEASES, NAMESPACE)).items}
        assert left == {name, "leader"}
        task.cancel()


async def test_a_server_that_begins_again_takes_its_lease_over() -> None:
    async with ApiCluster() as cluster:
        for uid in ("first", "second"):
            await Presence(cluster.server, cluster.clock, "h", 1, uid).renew()
        found = (await cluster.client.list(LEASES, NAMESPACE)).items
        assert [each["spec"]["holderIdentity"].rpartition("_")[2] for each in found] == ["second"]


def test_names_are_told_apart_by_host_and_port() -> None:
    assert identity("a", 1) == identity("a", 1) != identity("a", 2)
    assert len(identity("a", 1)) == len("apiserver-wlv32tlttr4jl3gtroqexyxapa")
