"""Migrations: what is stored in an older version or under an older key is written again, and nothing else changes."""

from __future__ import annotations

import os
from typing import Any

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import CONFIGMAPS, CUSTOMRESOURCEDEFINITIONS, SECRETS, Object, Resource
from steersman.apiserver.crd import CustomResources
from steersman.controllers.storageversionmigrator import MIGRATIONS, step, told
from steersman.lib.tasks import Tasks
from steersman.store.ciphers import AesGcm
from steersman.store.memory import MemoryStore
from steersman.store.sealed import Identity, Prefixed, SealedStore, Transformer
from steersman.testing.cluster import ApiCluster

from .conftest import World

NAME = "storage-version-migrator-controller"
FLEETS = Resource("sea.example.com", "v1", "fleets", "Fleet")
_ANY = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}


def migration(name: str, plural: str = "configmaps", group: str = "", **conditions: str) -> Object:
    resource = {"group": group, "resource": plural} if group else {"resource": plural}
    made: Object = {"metadata": {"name": name}, "spec": {"resource": resource}}
    if conditions:
        made["status"] = {"conditions": [{"type": kind, "status": status} for kind, status in conditions.items()]}
    return made


@pytest.mark.parametrize(
    ("mine", "others", "expected"),
    [
        (migration("b"), [], "start"),
        (migration("b"), [migration("c")], "start"),
        (migration("b"), [migration("a")], ""),
        (migration("b"), [migration("a", "secrets")], "start"),
        (migration("b"), [migration("a", Running="True")], ""),
        (migration("b"), [migration("a", Running="True", Succeeded="True")], ""),
        (migration("b"), [migration("a", Running="False", Succeeded="True")], "start"),
        (migration("b", Running="True"), [migration("a")], "run"),
        (migration("b", Running="True", Failed="True"), [], "settle"),
        (migration("b", Running="False", Succeeded="True"), [], ""),
        (migration("b", Failed="True"), [], ""),
    ],
)
def test_one_at_a_time(mine: Object, others: list[Object], expected: str) -> None:
    assert step(mine, [*others, mine]) == expected


def test_a_condition_keeps_its_time() -> None:
    first = told(migration("a"), "Running", "True", "R", "m", 0)
    again = told(first, "Running", "True", "R", "other", 50)
    assert again["status"]["conditions"][0]["lastTransitionTime"] == "1970-01-01T00:00:00Z"
    ended = told(again, "Running", "False", "R", "m", 50)
    assert [each["lastTransitionTime"] for each in ended["status"]["conditions"]] == ["1970-01-01T00:00:50Z"]


async def _conditions(world: World, name: str) -> dict[str, tuple[str, str, str]]:
    found = (await world.get(MIGRATIONS, name)).get("status") or {}
    return {each["type"]: (each["status"], each["reason"], each["message"]) for each in found.get("conditions") or ()}


ENDED = {
    "Running": ("False", "MigrationCompleted", "Migration completed"),
    "Succeeded": ("True", "StorageVersionMigrationSucceeded", ""),
}


def definition(storage: str) -> Object:
    versions = [{"name": each, "served": True, "storage": each == storage, "schema": _ANY} for each in ("v1", "v2")]
    names = {"plural": "fleets", "singular": "fleet", "kind": "Fleet"}
    spec = {"group": "sea.example.com", "scope": "Namespaced", "names": names, "versions": versions}
    return {"metadata": {"name": "fleets.sea.example.com"}, "spec": spec}


async def test_custom_objects_move_to_the_newer_version(world: World) -> None:
    await CustomResources(world.cluster.server, world.tasks).start()
    await world.client.create(CUSTOMRESOURCEDEFINITIONS, definition("v1"))
    await world.settle(1)
    for number in range(3):
        await world.client.create(FLEETS, {"metadata": {"name": f"f{number}"}, "spec": {"n": number}}, "default")
    current = await world.get(CUSTOMRESOURCEDEFINITIONS, "fleets.sea.example.com")
    await world.client.update(CUSTOMRESOURCEDEFINITIONS, {**current, "spec": definition("v2")["spec"]})
    await world.settle(1)
    key = "/sea.example.com/fleets/default/f1"
    before = await world.cluster.store.get(key)
    assert before is not None and b"sea.example.com/v1" in before.value
    world.start(NAME)
    await world.client.create(MIGRATIONS, migration("fleets", "fleets", "sea.example.com"))
    await world.settle(5)
    assert await _conditions(world, "fleets") == ENDED
    after = await world.cluster.store.get(key)
    assert after is not None and b'"apiVersion":"sea.example.com/v2"' in after.value
    fleet = await world.get(FLEETS, "f1")
    assert fleet["spec"] == {"n": 1} and [each["manager"] for each in fleet["metadata"]["managedFields"]] == [
        "steersman-testing"
    ]
    status = (await world.get(CUSTOMRESOURCEDEFINITIONS, "fleets.sea.example.com"))["status"]
    assert status["storedVersions"] == ["v2"]
    (found,) = [each for each in status["conditions"] if each["type"] == "StorageMigrating"]
    text = "The migration has succeeded and the stored versions have been updated"
    assert (found["status"], found["reason"], found["message"]) == ("False", "MigrationSucceeded", text)
    assert {"Established", "NamesAccepted"} <= {each["type"] for each in status["conditions"]}


@pytest.mark.parametrize(
    ("resource", "text"),
    [
        ({}, "spec.resource.resource: Required value: resource is required to be set"),
        ({"resource": "Config/Maps"}, 'spec.resource.resource: Invalid value: "Config/Maps": a DNS-1035 label must'),
        ({"resource": "configmaps", "group": "-"}, 'spec.resource.group: Invalid value: "-": a lowercase RFC 1123'),
    ],
)
async def test_what_a_migration_may_say(world: World, resource: Object, text: str) -> None:
    with pytest.raises(ApiError) as error:
        await world.client.create(MIGRATIONS, {"metadata": {"name": "m"}, "spec": {"resource": resource}})
    assert text in error.value.message


async def test_a_migration_ends_once(world: World) -> None:
    made = await world.client.create(MIGRATIONS, migration("m"))
    with pytest.raises(ApiError, match="field is immutable"):
        await world.client.patch(MIGRATIONS, "m", "", {"spec": {"resource": {"resource": "secrets"}}})
    stamp = {"reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    ended = [{"type": "Succeeded", "status": "True", **stamp}]
    made = await world.set_status(MIGRATIONS, made, conditions=ended, resourceVersion="5")
    for status, text in (
        ({"resourceVersion": "6"}, "field is immutable"),
        ({"resourceVersion": "five"}, "not well formed"),
        ({"conditions": [{**ended[0], "status": "False"}]}, "Success condition cannot be set to false once it is true"),
        ({"conditions": [*ended, {**ended[0], "type": "Failed"}]}, "cannot be true at the same time"),
    ):
        with pytest.raises(ApiError, match=text):
            await world.set_status(MIGRATIONS, made, **status)


async def test_what_is_stored_well_is_left_alone(world: World) -> None:
    made = await world.client.create(CONFIGMAPS, {"metadata": {"name": "c"}, "data": {"a": "b"}}, "default")
    world.start(NAME)
    await world.client.create(MIGRATIONS, migration("first"))
    await world.client.create(MIGRATIONS, migration("second"))
    await world.settle(5)
    for name in ("first", "second"):
        assert await _conditions(world, name) == ENDED
        assert (await world.get(MIGRATIONS, name))["status"]["resourceVersion"].isdecimal()
    assert await world.get(CONFIGMAPS, "c") == made


@pytest.mark.parametrize(
    ("plural", "group", "wait", "text"),
    [
        ("boats", "sea.example.com", 70, "resource does not exist in discovery"),
        (
            "tokenreviews",
            "authentication.k8s.io",
            5,
            'resource "authentication.k8s.io/v1, Resource=tokenreviews" does not support discovery operations: '
            "[update patch list]",
        ),
    ],
)
async def test_what_cannot_be_migrated(world: World, plural: str, group: str, wait: int, text: str) -> None:
    world.start(NAME)
    await world.client.create(MIGRATIONS, migration("m", plural, group))
    await world.settle(wait)
    found = await _conditions(world, "m")
    assert found["Failed"] == ("True", "StorageVersionMigrationFailed", text)
    assert found["Running"][0] == "False" and "Succeeded" not in found


async def test_objects_that_go_or_change_meanwhile_do_no_harm(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every third patch meets a conflict, every fifth a server that is busy: as if others wrote at the same time."""
    for number in range(20):
        await world.client.create(CONFIGMAPS, {"metadata": {"name": f"c{number}"}}, "default")
    patch, count = world.client.patch, [0]

    async def hindered(resource: Resource, *args: Any, **kwargs: Any) -> Object:
        if resource is not MIGRATIONS:
            count[0] += 1
            if count[0] % 5 == 0 and count[0] < 30:
                raise ApiError(429, "TooManyRequests", "too many requests")
            if count[0] % 3 == 0:
                raise ApiError(409, "Conflict", "the object has been modified")
        return await patch(resource, *args, **kwargs)

    monkeypatch.setattr(world.client, "patch", hindered)
    world.start(NAME)
    await world.client.create(MIGRATIONS, migration("m"))
    await world.settle(60)
    assert await _conditions(world, "m") == ENDED


def _under(inner: MemoryStore, *named: tuple[str, bytes]) -> SealedStore:
    keys: list[tuple[bytes, Transformer]] = [(f"{n}:".encode(), AesGcm(key, os.urandom)) for n, key in named]
    found = Prefixed([(b"k8s:enc:aesgcm:v1:", Prefixed(keys, "no matching key")), (b"", Identity())], "none")
    return SealedStore(inner, lambda key: found if key.startswith("/core/secrets/") else None)


class Kept(MemoryStore):
    """A store that outlives its server."""

    async def close(self) -> None:
        for entry in (await self.list("/core/namespaces/")).entries:
            await self.delete(entry.key, entry.revision)


async def test_secrets_move_to_the_newer_key() -> None:
    inner = Kept()
    old, new = ("old", bytes(16)), ("new", bytes(range(16)))
    async with ApiCluster(store=_under(inner, old)) as cluster:
        for number in range(3):
            body = {"metadata": {"name": f"s{number}"}, "stringData": {"word": "hunter2"}}
            await cluster.client.create(SECRETS, body, "default")
    async with ApiCluster(store=_under(inner, new, old)) as cluster, Tasks() as tasks:
        world = World(cluster, tasks)
        world.start(NAME)
        await world.client.create(MIGRATIONS, migration("secrets", "secrets"))
        await world.settle(5)
        assert await _conditions(world, "secrets") == ENDED
        entries = (await inner.list("/core/secrets/")).entries
        assert [entry.value[:22] for entry in entries] == [b"k8s:enc:aesgcm:v1:new:"] * 3
        assert (await world.get(SECRETS, "s1"))["data"] == {"word": "aHVudGVyMg=="}
