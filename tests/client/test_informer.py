from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from random import Random

import msgspec
import pytest

from steersman.api.errors import gone
from steersman.api.resource import CONFIGMAPS, Object, Resource
from steersman.client.client import Client
from steersman.client.informer import Informer, Informers
from steersman.lib.http.messages import Headers
from steersman.lib.tasks import Tasks
from steersman.testing.cluster import ApiCluster


def configmap(name: str, value: str = "1", labels: dict[str, str] | None = None) -> Object:
    return {"metadata": {"name": name, "labels": labels or {}}, "data": {"value": value}}


class Story:
    """What a handler was told, and a way to wait for it."""

    def __init__(self, informer: Informer) -> None:
        self.told: list[tuple[str | None, str | None]] = []
        self._changed = asyncio.Event()
        informer.add_handler(self)

    def __call__(self, old: Object | None, new: Object | None) -> None:
        self.told.append((_value(old), _value(new)))
        self._changed.set()

    async def reach(self, count: int) -> list[tuple[str | None, str | None]]:
        async with asyncio.timeout(600):
            while len(self.told) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.told


def _value(obj: Object | None) -> str | None:
    return None if obj is None else f"{obj['metadata']['name']}={obj['data']['value']}"


class Broken:
    """A transport that can be cut, and whose server can forget history."""

    def __init__(self, inner: object) -> None:
        self.inner = inner
        self.down = False
        self.expired = False
        self.targets: list[str] = []
        self._open: list[object] = []

    async def request(
        self, method: str, target: str, headers: Headers = (), body: bytes | AsyncIterator[bytes] = b""
    ) -> object:
        self.targets.append(target)
        if self.down:
            raise ConnectionRefusedError("down")
        if self.expired and "watch=true" in target:
            self.expired = False
            raise gone("too old resource version")
        answer = await self.inner.request(method, target, headers, body)  # type: ignore[attr-defined]
        self._open.append(answer)
        return answer

    async def cut(self) -> None:
        """Every stream ends now."""
        for answer in self._open:
            await answer.close()  # type: ignore[attr-defined]

    async def upgrade(self, method: str, target: str, headers: Headers = ()) -> object:
        raise ConnectionError

    async def close(self) -> None:
        pass


@pytest.fixture
def broken(cluster: ApiCluster) -> Broken:
    return Broken(cluster.transport)


@pytest.fixture
def informers(cluster: ApiCluster, broken: Broken, tasks: Tasks) -> Informers:
    client = Client(broken, clock=cluster.clock, user_agent="test")  # type: ignore[arg-type]
    return Informers(client, clock=cluster.clock, tasks=tasks, random=Random(1), detect_mutation=True)


async def test_it_follows_a_collection_in_order(cluster: ApiCluster, informers: Informers) -> None:
    await cluster.client.create(CONFIGMAPS, configmap("a"), "default")
    informer = informers.informer(CONFIGMAPS)
    story = Story(informer)
    await informer.synced()
    await cluster.client.patch(CONFIGMAPS, "a", "default", {"data": {"value": "2"}})
    await cluster.client.create(CONFIGMAPS, configmap("b"), "kube-system")
    await cluster.client.delete(CONFIGMAPS, "a", "default")
    assert await story.reach(4) == [(None, "a=1"), ("a=1", "a=2"), (None, "b=1"), ("a=2", None)]
    assert informer.get("default", "a") is None
    assert [obj["metadata"]["name"] for obj in informer.list("kube-system")] == ["b"]
    assert informer.list("default") == []
    assert informers.informer(CONFIGMAPS) is informer


async def test_a_late_handler_hears_what_is_there(cluster: ApiCluster, informers: Informers) -> None:
    await cluster.client.create(CONFIGMAPS, configmap("a"), "default")
    informer = informers.informer(CONFIGMAPS)
    await informer.synced()
    assert Story(informer).told == [(None, "a=1")]


@pytest.mark.parametrize("local", [True, False])
async def test_watches_within_one_process_are_left_alone(
    cluster: ApiCluster, broken: Broken, tasks: Tasks, local: bool
) -> None:
    """Over a network they are asked for anew, since one might hang, and bookmarks let them go on where they were."""
    client = Client(broken, clock=cluster.clock, user_agent="test", local=local)  # type: ignore[arg-type]
    informer = Informers(client, clock=cluster.clock, tasks=tasks, random=Random(1)).informer(CONFIGMAPS)
    await informer.synced()
    await cluster.clock.sleep(86_000)
    watches = [target for target in broken.targets if "watch=true" in target]
    assert all(("allowWatchBookmarks" in target) is not local for target in watches)
    assert (len(watches) == 1) is local
    story = Story(informer)
    await cluster.client.create(CONFIGMAPS, configmap("a"), "default")
    await cluster.clock.sleep(1000)
    assert story.told == [(None, "a=1")]


async def test_a_lost_watch_resumes_where_it_was(cluster: ApiCluster, informers: Informers, broken: Broken) -> None:
    informer = informers.informer(CONFIGMAPS)
    story = Story(informer)
    await informer.synced()
    await cluster.client.create(CONFIGMAPS, configmap("a"), "default")
    await story.reach(1)
    broken.down = True
    await broken.cut()
    await cluster.client.create(CONFIGMAPS, configmap("b"), "default")
    await cluster.clock.sleep(60)
    assert story.told == [(None, "a=1")]
    broken.down = False
    await story.reach(2)
    assert story.told == [(None, "a=1"), (None, "b=1")]
    assert sum("watch=true" not in target for target in broken.targets) == 1, "listed only once"


async def test_retries_back_off(cluster: ApiCluster, informers: Informers, broken: Broken) -> None:
    broken.down = True
    informers.informer(CONFIGMAPS)
    await cluster.clock.sleep(300)
    assert 10 < len(broken.targets) < 30


async def test_expired_history_is_read_anew_and_only_differences_told(
    cluster: ApiCluster, informers: Informers, broken: Broken
) -> None:
    for name in ("same", "changed", "gone"):
        await cluster.client.create(CONFIGMAPS, configmap(name), "default")
    informer = informers.informer(CONFIGMAPS)
    story = Story(informer)
    await informer.synced()
    await story.reach(3)
    broken.expired = broken.down = True
    await broken.cut()
    await cluster.client.patch(CONFIGMAPS, "changed", "default", {"data": {"value": "2"}})
    await cluster.client.delete(CONFIGMAPS, "gone", "default")
    broken.down = False
    assert (await story.reach(5))[3:] == [("gone=1", None), ("changed=1", "changed=2")]


async def test_a_replaced_object_is_told_as_gone_and_new(
    cluster: ApiCluster, informers: Informers, broken: Broken
) -> None:
    await cluster.client.create(CONFIGMAPS, configmap("a"), "default")
    informer = informers.informer(CONFIGMAPS)
    story = Story(informer)
    await story.reach(1)
    broken.expired = broken.down = True
    await broken.cut()
    await cluster.client.delete(CONFIGMAPS, "a", "default")
    await cluster.client.create(CONFIGMAPS, configmap("a", "2"), "default")
    broken.down = False
    assert (await story.reach(3))[1:] == [("a=1", None), (None, "a=2")]


async def test_indexes_follow_changes(cluster: ApiCluster, informers: Informers) -> None:
    informer = informers.informer(CONFIGMAPS)
    informer.add_index("value", lambda obj: [obj["data"]["value"]])
    story = Story(informer)
    await cluster.client.create(CONFIGMAPS, configmap("a"), "default")
    await story.reach(1)
    assert len(informer.by_index("value", "1")) == 1
    await cluster.client.patch(CONFIGMAPS, "a", "default", {"data": {"value": "2"}})
    await story.reach(2)
    assert informer.by_index("value", "1") == []
    assert len(informer.by_index("value", "2")) == 1
    with pytest.raises(KeyError):
        informer.by_index("nothing", "")


async def test_selectors_and_metadata_alone(cluster: ApiCluster, informers: Informers) -> None:
    await cluster.client.create(CONFIGMAPS, configmap("a", labels={"x": "y"}), "default")
    await cluster.client.create(CONFIGMAPS, configmap("b"), "default")
    chosen = informers.informer(CONFIGMAPS, labels="x=y")
    named = informers.informer(CONFIGMAPS, namespace="default", fields="metadata.name=b")
    lean = informers.informer(CONFIGMAPS, metadata_only=True)
    await informers.synced()
    assert [obj["metadata"]["name"] for obj in chosen.list()] == ["a"]
    assert [obj["metadata"]["name"] for obj in named.list()] == ["b"]
    assert all(set(obj) == {"apiVersion", "kind", "metadata"} and obj["kind"] == "ConfigMap" for obj in lean.list())
    assert len(lean.list()) == 2


async def test_a_reader_that_changes_an_object_is_caught(cluster: ApiCluster, informers: Informers) -> None:
    await cluster.client.create(CONFIGMAPS, configmap("a"), "default")
    informer = informers.informer(CONFIGMAPS)
    await informer.synced()
    informers.verify()
    informer.list()[0]["data"]["value"] = "mine"
    with pytest.raises(RuntimeError, match="configmaps default/a was changed"):
        informers.verify()


async def test_a_handler_that_fails_spoils_nothing(cluster: ApiCluster, informers: Informers) -> None:
    informer = informers.informer(CONFIGMAPS)

    def fails(old: Object | None, new: Object | None) -> None:
        raise LookupError("handler")

    informer.add_handler(fails)
    story = Story(informer)
    await cluster.client.create(CONFIGMAPS, configmap("a"), "default")
    assert await story.reach(1) == [(None, "a=1")]


async def test_what_a_release_lacks_is_said_once(
    cluster: ApiCluster, tasks: Tasks, caplog: pytest.LogCaptureFixture
) -> None:
    absent = Resource("example.com", "v1", "widgets", "Widget")
    informer = Informer(cluster.client, absent, clock=cluster.clock, random=Random(1))
    tasks.spawn(informer.run(), "informer")
    await cluster.clock.sleep(3600)
    assert [each.message[:21] for each in caplog.records if "widgets" in each.message] == ["cannot follow widgets"]
    assert not informer.has_synced


async def test_what_is_not_wanted_is_not_decoded(cluster: ApiCluster, informers: Informers) -> None:
    def read(body: bytes | memoryview) -> Object:
        found = msgspec.json.decode(body)
        return {"metadata": found["metadata"], "data": {"value": f"read {found['data']['value']}"}}

    await cluster.client.create(CONFIGMAPS, configmap("before"), "default")
    informer = informers.informer(CONFIGMAPS, namespace="default", decode=read)
    story = Story(informer)
    await informer.synced()
    await cluster.client.create(CONFIGMAPS, configmap("after"), "default")
    await cluster.client.delete(CONFIGMAPS, "before", "default")
    told = await story.reach(3)
    assert told == [(None, "before=read 1"), (None, "after=read 1"), ("before=read 1", None)]
