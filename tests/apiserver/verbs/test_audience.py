"""Watches over HTTP that are told together: each sees what it would alone."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random

import msgspec
import pytest

from steersman.api.resource import CONFIGMAPS, Object
from steersman.apiserver.verbs.watch import BOOKMARK_EVERY
from steersman.lib.http.joining import MOMENT, Joining
from steersman.lib.http.messages import Request, Stream
from steersman.lib.http.streams import ChunkWriter, Outgoing
from steersman.lib.tasks import Tasks
from steersman.testing.cluster import ApiCluster

_PATH = "/api/v1/namespaces/default/configmaps"
_NAMES = ("a", "b", "c")
Event = tuple[str, str, int]


class Line(asyncio.WriteTransport):
    """Keeps what is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def events(self) -> list[Event]:
        """Type, name and resourceVersion of each event."""
        found, left = [], self.sent
        while left:
            size, _, left = left.partition(b"\r\n")
            event = msgspec.json.decode(left[: int(size, 16)])
            meta = event["object"]["metadata"]
            found.append((event["type"], meta.get("name", ""), int(meta["resourceVersion"])))
            left = left[int(size, 16) + 2 :]
        return found


@dataclass
class Watching:
    """One watch: what it wants, what it is sent, and from and until when."""

    selected: bool
    after: int
    line: Line = field(default_factory=Line)
    until: int = 0


@dataclass
class Play:
    """What happens, and who watches."""

    cluster: ApiCluster
    random: Random
    joining: Joining
    past: list[tuple[int, str, str, str]] = field(default_factory=list)  # revision, name, label before and after
    labels: dict[str, str] = field(default_factory=dict)
    watching: dict[asyncio.Task[None], Watching] = field(default_factory=dict)
    outs: dict[asyncio.Task[None], Outgoing] = field(default_factory=dict)
    over: list[Watching] = field(default_factory=list)
    tasks: Tasks = field(default_factory=Tasks)

    @property
    def revision(self) -> int:
        return self.cluster.store.revision

    async def write(self) -> None:
        """Something comes, changes or goes."""
        name, client = self.random.choice(_NAMES), self.cluster.client
        before, after = self.labels.get(name, ""), self.random.choice(("", "yes", "no"))
        made: Object = {
            "metadata": {"name": name, "namespace": "default", "labels": {"in": after}},
            "data": {"x": str(self.random.random())},
        }
        if before and after:
            await client.update(CONFIGMAPS, made)
        elif before:
            await client.delete(CONFIGMAPS, name, "default")
        elif after:
            await client.create(CONFIGMAPS, made)
        else:
            return
        self.past.append((self.revision, name, before, after))
        self.labels[name] = after

    def begin(self) -> None:
        """Somebody watches, from now on or from a while ago."""
        found = Watching(self.random.random() < 0.5, self.random.randint(max(1, self.revision - 5), self.revision))
        query = f"watch=1&allowWatchBookmarks=true&resourceVersion={found.after}"
        answer = self.cluster.server.handle(
            Request("GET", _PATH, query + "&labelSelector=in%3Dyes" * found.selected, [])
        )
        out = Outgoing(found.line, 1_000_000, self.joining)

        async def run() -> None:
            stream = answer if isinstance(answer, Stream) else await answer
            assert isinstance(stream, Stream) and stream.status == 200
            await stream.run(ChunkWriter(out, chunked=True))

        task = self.tasks.spawn(run(), "watch")
        self.watching[task], self.outs[task] = found, out

    async def end(self, task: asyncio.Task[None]) -> None:
        """Somebody hangs up, after what was under way."""
        await self.cluster.clock.sleep(0.1)
        watching = self.watching.pop(task)
        watching.until = self.revision
        self.outs.pop(task).lost()
        await task
        self.over.append(watching)

    def expected(self, watching: Watching) -> list[Event]:
        """What one is to see."""
        found: list[Event] = []
        for revision, name, before, after in self.past:
            if watching.after < revision <= watching.until:
                was, is_ = ((label == "yes" if watching.selected else bool(label)) for label in (before, after))
                if was or is_:
                    found.append((("MODIFIED" if was else "ADDED") if is_ else "DELETED", name, revision))
        return found


@pytest.mark.parametrize("seed", range(12))
async def test_each_sees_every_change_once_and_in_order(cluster: ApiCluster, seed: int) -> None:
    random = Random(seed)
    play = Play(cluster, random, Joining(cluster.clock.monotonic))
    for _ in range(150):
        match random.randrange(12):
            case 0 | 1:
                play.begin()
            case 2 if play.watching:
                await play.end(random.choice(list(play.watching)))
            case 3:
                await cluster.clock.sleep(random.choice((0.0002, 0.003, 61)))
            case _:
                await play.write()
    for task in list(play.watching):
        await play.end(task)
    bookmarks = 0
    for watching in play.over:
        found = watching.line.events()
        assert [event for event in found if event[0] != "BOOKMARK"] == play.expected(watching)
        assert found == sorted(found, key=lambda event: event[2])
        bookmarks += len(found) - len(play.expected(watching))
    assert bookmarks
    cache = cluster.server.storage.cache(cluster.server.registry.find("", "configmaps"))  # type: ignore[arg-type]
    assert (cache.audiences, cache.watchers) == ({}, 0)


async def test_a_bookmark_comes_behind_what_everybody_was_told(cluster: ApiCluster) -> None:
    play = Play(cluster, Random(0), Joining(cluster.clock.monotonic))
    play.begin()
    await cluster.clock.sleep(BOOKMARK_EVERY - MOMENT / 2)
    while len(play.past) < 4:
        await play.write()
        await cluster.clock.sleep(MOMENT / 10)  # the first is told at once, the next wait for one another
    await play.end(next(iter(play.watching)))
    types, revisions = zip(*((type, revision) for type, _, revision in play.over[0].line.events()), strict=True)
    assert types[-1] == "BOOKMARK" and list(revisions) == sorted(revisions)
    assert len(types) == 1 + len(play.expected(play.over[0]))


async def test_who_has_the_same_view_is_told_together(cluster: ApiCluster) -> None:
    cache = cluster.server.storage.cache(cluster.server.registry.find("", "configmaps"))  # type: ignore[arg-type]
    play = Play(cluster, Random(0), Joining(cluster.clock.monotonic))
    for _ in range(20):
        play.begin()
    await cluster.clock.sleep(0.1)
    selected = {watching.selected for watching in play.watching.values()}
    assert (len(cache.audiences), cache.watchers) == (len(selected), len(selected)) == (2, 2)
    for task in list(play.watching):
        await play.end(task)
