"""pods/eviction over the real API server."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import PODDISRUPTIONBUDGETS, PODS, Object
from steersman.testing import objects
from steersman.testing.cluster import ApiCluster


async def running(cluster: ApiCluster, name: str) -> Object:
    await cluster.client.create(PODS, objects.pod(name, labels={"app": "web"}, nodeName="n"), "default")
    made = await cluster.client.get(PODS, name, "default")
    made["status"] = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    return await cluster.client.update(PODS, made, subresource="status")


async def evict(cluster: ApiCluster, name: str, **options: Any) -> None:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}, "deleteOptions": options}
    await cluster.client.call("POST", f"/api/v1/namespaces/default/pods/{name}/eviction", body)


async def test_an_evicted_pod_says_why_it_goes() -> None:
    async with ApiCluster() as cluster:
        await running(cluster, "web")
        await evict(cluster, "web")
        found = await cluster.client.get(PODS, "web", "default")
        assert "deletionTimestamp" in found["metadata"]
        [target] = [one for one in found["status"]["conditions"] if one["type"] == "DisruptionTarget"]
        assert (target["status"], target["reason"]) == ("True", "EvictionByEvictionAPI")
        assert target["message"] == "Eviction API: evicting"
        assert [one["type"] for one in found["status"]["conditions"]] == ["Ready", "DisruptionTarget"]


async def test_a_dry_run_marks_nothing() -> None:
    async with ApiCluster() as cluster:
        before = await running(cluster, "web")
        await evict(cluster, "web", dryRun=["All"])
        assert await cluster.client.get(PODS, "web", "default") == before


async def test_a_spent_budget_refuses() -> None:
    async with ApiCluster() as cluster:
        before = await running(cluster, "web")
        spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
        await cluster.client.create(PODDISRUPTIONBUDGETS, {"metadata": {"name": "b"}, "spec": spec}, "default")
        with pytest.raises(ApiError) as refused:
            await evict(cluster, "web")
        assert refused.value.code == 429
        assert await cluster.client.get(PODS, "web", "default") == before
