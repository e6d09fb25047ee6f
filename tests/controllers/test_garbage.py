from __future__ import annotations

from random import Random
from typing import Any

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import (
    CLUSTERROLES,
    CONFIGMAPS,
    DEPLOYMENTS,
    PODS,
    REPLICASETS,
    SECRETS,
    Object,
    Resource,
)
from steersman.client.controller import Context
from steersman.controllers.garbage import delete
from steersman.controllers.garbage.graph import Graph, Node

from .conftest import World
from .objects import deployment, replicaset


def owner_of(obj: Object, *, block: bool = True) -> Object:
    return {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "name": obj["metadata"]["name"],
        "uid": obj["metadata"]["uid"],
        "blockOwnerDeletion": block,
    }


def made(uid: str, *owners: str, **meta: Any) -> Object:
    references = [{"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": name} for name in owners]
    return {"metadata": {"name": uid, "namespace": "default", "uid": uid, "ownerReferences": references, **meta}}


def test_the_graph_looks_only_where_something_may_have_to_be_done() -> None:
    looks: list[str] = []
    graph = Graph(looks.append)
    graph.changed(CONFIGMAPS, None, made("a"))
    graph.changed(CONFIGMAPS, None, made("b", "a"))
    assert looks == [], "the owner is there"
    graph.changed(CONFIGMAPS, None, made("c", "missing"))
    assert looks == ["c"]
    graph.changed(CONFIGMAPS, made("a"), None)
    assert looks == ["c", "b"]
    looks.clear()
    deleting = made("d", finalizers=["foregroundDeletion"], deletionTimestamp="x")
    graph.changed(CONFIGMAPS, None, deleting)
    graph.changed(CONFIGMAPS, None, made("e", "d"))
    assert looks == ["d", "e"]
    graph.changed(CONFIGMAPS, made("e", "d"), None)
    assert looks == ["d", "e", "d"], "the owner may be free now"


async def make(world: World, name: str, *owners: Object, resource: Resource = CONFIGMAPS, block: bool = True) -> Object:
    body = {"metadata": {"name": name, "ownerReferences": [owner_of(each, block=block) for each in owners]}}
    return await world.client.create(resource, body, "default" if resource.namespaced else "")


async def test_background_deletion_reaches_dependents_of_dependents(world: World) -> None:
    world.start("garbage-collector-controller", "deployment-controller", "replicaset-controller")
    await world.client.create(DEPLOYMENTS, deployment(), "default")
    await world.settle()
    assert len(await world.list(PODS)) == 2
    await world.client.delete(DEPLOYMENTS, "web", "default", propagation="Background")
    await world.settle()
    assert await world.list(REPLICASETS) == []
    assert await world.list(PODS) == []


async def test_orphaning_leaves_dependents_without_owner(world: World) -> None:
    world.start("garbage-collector-controller", "replicaset-controller")
    await world.client.create(REPLICASETS, replicaset(), "default")
    await world.settle()
    await world.client.delete(REPLICASETS, "rs", "default", propagation="Orphan")
    await world.settle(30)
    assert await world.list(REPLICASETS) == []
    pods = await world.list(PODS)
    assert len(pods) == 2
    assert not any(pod["metadata"].get("ownerReferences") for pod in pods)


async def test_foreground_deletion_waits_for_those_that_block(world: World) -> None:
    world.start("garbage-collector-controller")
    owner = await make(world, "owner")
    held = await make(world, "held", owner)
    await make(world, "free", owner, block=False)
    await world.client.patch(CONFIGMAPS, "held", "default", {"metadata": {"finalizers": ["example.com/hold"]}})
    await world.settle()
    await world.client.delete(CONFIGMAPS, "owner", "default", propagation="Foreground")
    await world.settle()
    assert await world.names(CONFIGMAPS) == ["held", "owner"]
    await world.client.patch(CONFIGMAPS, "held", "default", {"metadata": {"finalizers": None}})
    await world.settle()
    assert await world.names(CONFIGMAPS) == []
    assert held["metadata"]["name"] == "held"


async def test_an_owner_that_never_was_or_was_replaced_is_gone(world: World) -> None:
    world.start("garbage-collector-controller")
    await world.settle()
    ghost = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ghost", "uid": "never"}}
    await make(world, "haunted", ghost)
    real = await make(world, "real")
    replaced = {**real, "metadata": {**real["metadata"], "uid": "older"}}
    await make(world, "late", replaced)
    await world.settle()
    assert await world.names(CONFIGMAPS) == ["real"]


async def test_only_owners_that_were_seen_count_where_a_test_suite_invents_some(world: World) -> None:
    world.start("garbage-collector-controller", **{"collect-only-seen-owners": "true"})
    ghost = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ghost", "uid": "never"}}
    await make(world, "haunted", ghost)
    await make(world, "child", await make(world, "real"))
    await world.settle()
    await world.client.delete(CONFIGMAPS, "real", "default")
    await world.settle()
    assert await world.names(CONFIGMAPS) == ["haunted"]


async def test_who_loses_his_owners_while_they_are_asked_for_stays(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = world.client.transport.request

    async def slow(method: str, target: str, *more: Any, **options: Any) -> Any:
        answer = await request(method, target, *more, **options)
        if (method, target) == ("GET", "/api/v1/namespaces/default/configmaps/ghost"):
            await world.client.patch(CONFIGMAPS, "let-go", "default", {"metadata": {"ownerReferences": None}})
            await world.settle(1)  # the collector sees it before it has the answer
        return answer

    monkeypatch.setattr(world.client.transport, "request", slow)
    world.start("garbage-collector-controller")
    await world.settle()
    await make(
        world, "let-go", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ghost", "uid": "never"}}
    )
    await world.settle(30)
    assert await world.names(CONFIGMAPS) == ["let-go"]


async def test_an_owner_that_is_gone_is_not_asked_for_by_each_dependent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    request = world.client.transport.request

    async def counted(method: str, target: str, *more: Any, **options: Any) -> Any:
        asked.append(f"{method} {target}")
        return await request(method, target, *more, **options)

    monkeypatch.setattr(world.client.transport, "request", counted)
    owner = await make(world, "owner")
    for number in range(60):
        await make(world, f"dependent-{number}", owner)
    world.start("garbage-collector-controller")
    await world.settle()
    asked.clear()
    await world.client.delete(CONFIGMAPS, "owner", "default")
    await world.settle()
    assert await world.names(CONFIGMAPS) == []
    assert asked.count("GET /api/v1/namespaces/default/configmaps/owner") <= 20  # by as many as look at once


async def test_one_owner_left_is_enough_and_the_other_reference_goes(world: World) -> None:
    world.start("garbage-collector-controller")
    first, second = await make(world, "first"), await make(world, "second")
    await make(world, "child", first, second)
    await world.settle()
    await world.client.delete(CONFIGMAPS, "first", "default")
    await world.settle()
    left = (await world.get(CONFIGMAPS, "child"))["metadata"]["ownerReferences"]
    assert [each["name"] for each in left] == ["second"]


async def test_only_the_version_that_was_judged_is_deleted(world: World) -> None:
    owner = await make(world, "owner")
    child = await make(world, "child", owner)
    node = Node(CONFIGMAPS, child["metadata"])
    context = Context(world.client, world.informers, world.clock, world.recorder, Random(1))
    await world.client.patch(CONFIGMAPS, "child", "default", {"metadata": {"ownerReferences": None}})
    with pytest.raises(ApiError) as refused:
        await delete(context, node, "Background")
    assert refused.value.code == 409
    assert await world.names(CONFIGMAPS) == ["child", "owner"]


async def test_many_are_orphaned_without_a_loss(world: World) -> None:
    world.start("garbage-collector-controller", "replicaset-controller")
    await world.client.create(REPLICASETS, replicaset(replicas=60), "default")
    await world.settle()
    await world.client.delete(REPLICASETS, "rs", "default", propagation="Orphan")
    await world.settle(60)
    assert len(await world.list(PODS)) == 60


async def test_circles_do_not_block(world: World) -> None:
    world.start("garbage-collector-controller")
    one = await make(world, "one")
    two = await make(world, "two", one)
    three = await make(world, "three", two)
    body = {"metadata": {"ownerReferences": [owner_of(three)]}}
    await world.client.patch(CONFIGMAPS, "one", "default", body)
    await world.settle()
    await world.client.delete(CONFIGMAPS, "one", "default", propagation="Foreground")
    await world.settle(30)
    assert await world.names(CONFIGMAPS) == []


async def test_owners_in_other_namespaces_do_not_count(world: World) -> None:
    world.start("garbage-collector-controller")
    elsewhere = await world.client.create(CONFIGMAPS, {"metadata": {"name": "owner"}}, "kube-system")
    await make(world, "child", elsewhere)
    role = await make(world, "role", resource=CLUSTERROLES)
    await make(world, "of-role", role)
    await make(world, "cluster-scoped", elsewhere, resource=CLUSTERROLES)
    await world.settle()
    assert await world.names(CONFIGMAPS) == ["of-role"]
    assert "cluster-scoped" in await world.names(CLUSTERROLES), "nothing is deleted on a claim that cannot be true"
    assert "OwnerRefInvalidNamespace" in [reason for reason, _ in await world.events()]


async def test_an_owner_of_a_kind_that_is_not_served_keeps_its_dependents(world: World) -> None:
    world.start("garbage-collector-controller")
    unknown = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "uid": "w"}}
    await make(world, "child", unknown, resource=SECRETS)
    await world.settle(1000)
    assert await world.names(SECRETS) == ["child"]
