"""What a delete leaves for the garbage collector, and what it answers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from steersman.api.resource import JOBS, NAMESPACES, REPLICASETS, REPLICATIONCONTROLLERS, Object, Resource
from steersman.testing.cluster import ApiCluster

CLASSES = Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False)

TEMPLATE = {
    "metadata": {"labels": {"a": "b"}},
    "spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Always"},
}
JOB = {"template": {"spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}}}
SET = {"selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}
CONTROLLER = {"selector": {"a": "b"}, "template": TEMPLATE}


async def make(cluster: ApiCluster, resource: Resource, spec: Object, **meta: Any) -> Object:
    return await cluster.client.create(resource, {"metadata": {"name": "x", **meta}, "spec": spec}, "default")


async def delete(cluster: ApiCluster, resource: Resource, query: str = "", body: Object | None = None) -> Any:
    path = f"{resource.path('default')}/x{query}"
    response, answer = await cluster.client.raw("DELETE", path, msgspec.json.encode(body) if body else b"")
    return response, msgspec.json.decode(answer)


@pytest.mark.parametrize(
    ("resource", "spec", "query", "finalizers"),
    [
        (JOBS, JOB, "", ["orphan"]),
        (JOBS, JOB, "?propagationPolicy=Background", None),
        (JOBS, JOB, "?propagationPolicy=Foreground", ["foregroundDeletion"]),
        (REPLICATIONCONTROLLERS, CONTROLLER, "", ["orphan"]),
        (REPLICATIONCONTROLLERS, CONTROLLER, "?orphanDependents=false", None),
        (REPLICASETS, SET, "", None),
        (REPLICASETS, SET, "?orphanDependents=true", ["orphan"]),
        (REPLICASETS, SET, "?propagationPolicy=Orphan", ["orphan"]),
    ],
)
async def test_propagation(
    cluster: ApiCluster, resource: Resource, spec: Object, query: str, finalizers: list[str] | None
) -> None:
    await make(cluster, resource, spec)
    response, answer = await delete(cluster, resource, query)
    assert response.status == 200
    if finalizers is None:
        assert answer["kind"] == "Status"
        assert answer["details"]["kind"] == resource.plural
    else:
        assert answer["metadata"]["finalizers"] == finalizers
        assert answer["metadata"]["deletionTimestamp"]


async def test_a_job_deleted_without_a_policy_is_warned_about(cluster: ApiCluster) -> None:
    await make(cluster, JOBS, JOB)
    response, _ = await delete(cluster, JOBS)
    assert "child pods are preserved by default" in (response.header("warning") or "")


async def test_the_last_word_on_dependents_counts(cluster: ApiCluster) -> None:
    await make(cluster, REPLICASETS, SET, finalizers=["a.b/c"])
    _, first = await delete(cluster, REPLICASETS, "?propagationPolicy=Foreground")
    assert first["metadata"]["finalizers"] == ["a.b/c", "foregroundDeletion"]
    _, again = await delete(cluster, REPLICASETS)
    assert again["metadata"]["finalizers"] == ["a.b/c", "foregroundDeletion"]
    _, last = await delete(cluster, REPLICASETS, "?propagationPolicy=Background")
    assert last["metadata"]["finalizers"] == ["a.b/c"]


async def test_accepted_when_cascading_was_asked_for_in_the_old_words(cluster: ApiCluster) -> None:
    await make(cluster, REPLICASETS, SET, finalizers=["a.b/c"])
    response, _ = await delete(cluster, REPLICASETS, "?orphanDependents=false")
    assert response.status == 202


@pytest.mark.parametrize(
    ("query", "body", "text"),
    [
        ("?propagationPolicy=Nonsense", None, "propagationPolicy"),
        ("?propagationPolicy=Orphan&orphanDependents=true", None, "orphanDependents and deletionPropagation"),
        ("?dryRun=Some", None, "dryRun"),
        ("", {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Nonsense"}, "propagationPolicy"),
    ],
)
async def test_bad_options(cluster: ApiCluster, query: str, body: Object | None, text: str) -> None:
    await make(cluster, REPLICASETS, SET)
    response, answer = await delete(cluster, REPLICASETS, query, body)
    assert (response.status, answer["reason"]) == (422, "Invalid")
    assert text in answer["message"]


async def test_a_dry_run_deletes_nothing(cluster: ApiCluster) -> None:
    made = await make(cluster, REPLICASETS, SET)
    response, _ = await delete(cluster, REPLICASETS, "?dryRun=All")
    assert response.status == 200
    assert await cluster.client.get(REPLICASETS, "x", "default") == made


async def test_a_collection_by_label(cluster: ApiCluster) -> None:
    for name, label in (("a", "1"), ("b", "2"), ("c", "1")):
        body = {"metadata": {"name": name, "labels": {"n": label}}, "spec": SET}
        await cluster.client.create(REPLICASETS, body, "default")
    await cluster.client.create(NAMESPACES, {"metadata": {"name": "other"}})
    body = {"metadata": {"name": "d", "labels": {"n": "1"}}, "spec": SET}
    await cluster.client.create(REPLICASETS, body, "other")
    path = f"{REPLICASETS.path('default')}?labelSelector=n%3D1"
    response, answer = await cluster.client.raw("DELETE", path)
    assert response.status == 200
    assert [item["metadata"]["name"] for item in msgspec.json.decode(answer)["items"]] == ["a", "c"]
    left = await cluster.client.list(REPLICASETS)
    assert [item["metadata"]["name"] for item in left.items] == ["b", "d"]


@pytest.mark.parametrize("version", ["apps/v1", "v1", "batch/v9"])
async def test_options_may_be_in_any_groups_version(cluster: ApiCluster, version: str) -> None:
    await make(cluster, REPLICASETS, SET)
    options = {"apiVersion": version, "kind": "DeleteOptions", "propagationPolicy": "Background"}
    response, _ = await delete(cluster, REPLICASETS, body=options)
    assert response.status == 200


async def test_the_systems_priority_classes_stay(cluster: ApiCluster) -> None:
    system = {"metadata": {"name": "system-node-critical"}, "value": 2_000_001_000}
    for made in (system, {"metadata": {"name": "mine"}, "value": 1}):
        await cluster.client.create(CLASSES, made)
    response, answer = await cluster.client.raw("DELETE", f"{CLASSES.path()}/system-node-critical?dryRun=All")
    assert response.status == 403
    assert b'is forbidden: this is a system priority class and cannot be deleted"' in answer
    response, _ = await cluster.client.raw("DELETE", f"{CLASSES.path()}/mine")
    assert response.status == 200
