"""Watches of the real API server in process."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import CONFIGMAPS, Object
from steersman.apiserver.app import ApiServer
from steersman.client.client import Client
from steersman.client.transport import InProcess
from steersman.testing.cluster import ApiCluster, NoAdmission, allow_all, everybody_is_admin


def config(name: str, **labels: str) -> Object:
    return {"metadata": {"name": name, "labels": labels}}


async def events(client: Client, count: int, **options: object) -> list[tuple[str, str]]:
    """The first `count` events of a watch, as type and name."""
    found = []
    watching = client.watch(CONFIGMAPS, "default", bookmarks=False, **options)  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        async for event in watching:
            found.append((event.type, event.object["metadata"]["name"]))
            if len(found) == count:
                break
    return found


async def test_a_watch_goes_on_from_a_version(cluster: ApiCluster) -> None:
    made = await cluster.client.create(CONFIGMAPS, config("a"), "default")
    await cluster.client.create(CONFIGMAPS, config("b"), "default")
    await cluster.client.delete(CONFIGMAPS, "a", "default")
    version = made["metadata"]["resourceVersion"]
    assert await events(cluster.client, 2, resource_version=version) == [("ADDED", "b"), ("DELETED", "a")]


async def test_without_a_version_the_state_comes_first(cluster: ApiCluster) -> None:
    await cluster.client.create(CONFIGMAPS, config("a"), "default")
    assert await events(cluster.client, 1, resource_version="0") == [("ADDED", "a")]


async def test_a_selector_turns_updates_into_coming_and_going(cluster: ApiCluster) -> None:
    made = await cluster.client.create(CONFIGMAPS, config("a"), "default")
    for label in ("yes", "yes", None):
        await cluster.client.patch(
            CONFIGMAPS, "a", "default", {"metadata": {"labels": {"in": label}}, "data": {"x": str(label)}}
        )
    await cluster.client.patch(
        CONFIGMAPS, "a", "default", {"metadata": {"labels": {"in": "yes"}}, "data": {"x": "last"}}
    )
    version = made["metadata"]["resourceVersion"]
    found = await events(cluster.client, 3, resource_version=version, labels="in=yes")
    assert [type for type, _ in found] == ["ADDED", "DELETED", "ADDED"]


async def test_a_version_that_was_compacted_is_gone(cluster: ApiCluster) -> None:
    made = await cluster.client.create(CONFIGMAPS, config("a"), "default")
    cache = cluster.server.storage.cache(cluster.server.registry.find("", "configmaps"))  # type: ignore[arg-type]
    for number in range(3):
        await cluster.client.create(CONFIGMAPS, config(f"b{number}"), "default")
    await cluster.store.compact(cluster.store.revision)
    cache.oldest = cluster.store.revision
    with pytest.raises(ApiError, match="too old resource version") as error:
        await events(cluster.client, 1, resource_version=made["metadata"]["resourceVersion"])
    assert error.value.code == 410


async def test_a_restarted_server_tells_what_an_earlier_one_saw(cluster: ApiCluster) -> None:
    made = await cluster.client.create(CONFIGMAPS, config("a"), "default")
    await cluster.client.create(CONFIGMAPS, config("b"), "default")
    second = ApiServer(
        cluster.store, type(cluster.server.registry)(), cluster.clock,
        admission=NoAdmission(), authenticators=[everybody_is_admin], authorizer=allow_all,
    )  # fmt: skip
    await second.start()
    client = Client(InProcess(second.handle), clock=cluster.clock, user_agent="tests")
    assert await events(client, 1, resource_version=made["metadata"]["resourceVersion"]) == [("ADDED", "b")]
    await client.transport.close()
    await second.close()


async def raw_events(
    cluster: ApiCluster, query: str, path: str = CONFIGMAPS.path("default"), accept: str = "application/json"
) -> list[Object]:
    """Everything that a watch of one second tells."""
    _, body = await cluster.client.raw("GET", f"{path}?watch=1&timeoutSeconds=1&{query}", accept=accept)
    return [msgspec.json.decode(line) for line in body.splitlines()]


async def test_one_object_alone_can_be_watched(cluster: ApiCluster) -> None:
    await cluster.client.create(CONFIGMAPS, config("a"), "default")
    await cluster.client.create(CONFIGMAPS, config("b"), "default")
    told = await raw_events(cluster, "", "/api/v1/watch/namespaces/default/configmaps/b")
    assert [(event["type"], event["object"]["metadata"]["name"]) for event in told] == [("ADDED", "b")]
    told = await raw_events(cluster, "", "/api/v1/watch/namespaces/default")
    assert [(event["type"], event["object"]["metadata"]["name"]) for event in told] == [("ADDED", "default")]
    got = await raw_events(cluster, "", f"{CONFIGMAPS.path('default')}/b")  # where a name is a get, whatever it says
    assert [obj["metadata"]["name"] for obj in got] == ["b"]


async def test_no_initial_events_when_the_client_wants_none(cluster: ApiCluster) -> None:
    await cluster.client.create(CONFIGMAPS, config("a"), "default")
    assert await raw_events(cluster, "sendInitialEvents=false&resourceVersionMatch=NotOlderThan") == []


async def test_initial_events_end_with_a_bookmark(cluster: ApiCluster) -> None:
    made = await cluster.client.create(CONFIGMAPS, config("a"), "default")
    query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    added, end, *_ = await raw_events(cluster, query)
    assert (added["type"], end["type"]) == ("ADDED", "BOOKMARK")
    assert end["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert int(end["object"]["metadata"]["resourceVersion"]) >= int(made["metadata"]["resourceVersion"])


async def test_a_bookmark_in_a_table_is_a_row_of_its_own(cluster: ApiCluster) -> None:
    await cluster.client.create(CONFIGMAPS, config("a"), "default")
    query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    added, end, *_ = await raw_events(cluster, query, accept=accept)
    assert (added["type"], end["type"]) == ("ADDED", "BOOKMARK")
    assert added["object"]["rows"][0]["cells"][:2] == ["a", 0]
    (row,) = end["object"]["rows"]
    assert row["cells"] == ["", "", ""]
    assert row["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


@pytest.mark.parametrize("query", ["sendInitialEvents=true", "resourceVersionMatch=Exact&resourceVersion=1"])
async def test_options_that_make_no_sense(cluster: ApiCluster, query: str) -> None:
    response, body = await cluster.client.raw("GET", f"{CONFIGMAPS.path('default')}?watch=1&{query}")
    assert response.status == 422
    assert b"resourceVersionMatch" in body
