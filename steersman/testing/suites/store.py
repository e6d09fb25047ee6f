"""The store's contract, as functions: every implementation of `store.interface.Store` passes all of them.

Called by `tests/store`, once per implementation: `for check in store.CHECKS: await check(fresh_store)`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from steersman.store.interface import (
    Compacted,
    Event,
    FutureRevision,
    Guard,
    GuardFailed,
    KeyExists,
    RevisionConflict,
    Store,
    StoreError,
    StoreUnavailable,
)
from steersman.testing.guarantees import History, check_watch


async def _raises(expected: type[StoreError], call: Awaitable[Any]) -> StoreError:
    try:
        await call
    except expected as error:
        return error
    raise AssertionError(f"{expected.__name__} was not raised")


async def creates_and_reads(store: Store) -> None:
    """A created key is there with the revision that `create` returned."""
    assert store.revision == 1
    revision = await store.create("/a/1", b"one")
    entry = await store.get("/a/1")
    assert entry is not None
    assert (entry.value, entry.revision, store.revision) == (b"one", revision, revision)
    assert await store.get("/a/2") is None


async def create_refuses_a_taken_key(store: Store) -> None:
    """`create` never overwrites, and a deleted key can be created again."""
    first = await store.create("/a", b"one")
    await _raises(KeyExists, store.create("/a", b"two"))
    await store.delete("/a", first)
    assert await store.create("/a", b"three") > first


async def update_compares(store: Store) -> None:
    """`update` needs the current revision and shows the current entry when it is not."""
    first = await store.create("/a", b"one")
    second = await store.update("/a", b"two", first)
    error = await _raises(RevisionConflict, store.update("/a", b"three", first))
    assert isinstance(error, RevisionConflict)
    assert error.current is not None
    assert (error.current.value, error.current.revision) == (b"two", second)
    gone = await _raises(RevisionConflict, store.update("/b", b"x", second))
    assert isinstance(gone, RevisionConflict)
    assert gone.current is None


async def delete_compares(store: Store) -> None:
    """`delete` needs the current revision; a deletion takes a revision of its own."""
    first = await store.create("/a", b"one")
    await _raises(RevisionConflict, store.delete("/a", first + 7))
    assert await store.delete("/a", first) == first + 1
    await _raises(RevisionConflict, store.delete("/a", first))
    assert await store.get("/a") is None


async def guarded_writes_compare_two_keys(store: Store) -> None:
    """A write with a guard happens only while the other key's last write is the one it names."""
    lease = await store.create("/lease", b"one")
    guard = Guard("/lease", lease)
    made = await store.create("/a", b"1", guard=guard)
    changed = await store.update("/a", b"2", made, guard=guard)
    renewed = await store.update("/lease", b"two", lease)
    for refused in (
        lambda: store.create("/b", b"1", guard=guard),
        lambda: store.update("/a", b"3", changed, guard=guard),
        lambda: store.delete("/a", changed, guard=guard),
        lambda: store.create("/b", b"1", guard=Guard("/none", lease)),
    ):
        await _raises(GuardFailed, refused())
    assert store.revision == renewed
    await _raises(KeyExists, store.create("/a", b"1", guard=guard))
    await _raises(RevisionConflict, store.delete("/a", made, guard=Guard("/lease", renewed)))
    assert await store.delete("/a", changed, guard=Guard("/lease", renewed)) == renewed + 1
    await store.delete("/lease", renewed)
    await _raises(GuardFailed, store.create("/b", b"1", guard=Guard("/lease", renewed)))


async def no_guarded_write_follows_that_of_its_guard(store: Store) -> None:
    """Whoever wrote the guard's key and then reads sees every write that it let pass; none comes later."""
    lease = await store.create("/lease", b"0")
    late: list[int] = []

    async def write(number: int) -> None:
        with contextlib.suppress(GuardFailed):
            late.append(await store.create(f"/a/{number}", b"x", guard=Guard("/lease", lease)))

    async def take() -> int:
        return await store.update("/lease", b"1", lease)

    _, taken, _ = await asyncio.gather(
        asyncio.gather(*map(write, range(20))), take(), asyncio.gather(*map(write, range(20, 40)))
    )
    seen = await store.list("/a/")
    assert all(revision < taken for revision in late)
    assert sorted(entry.revision for entry in seen.entries) == sorted(late)


async def lists_in_order(store: Store) -> None:
    """Prefix, order, limit, continuation and the count of the rest."""
    for name in ("b/2", "a/1", "b/1", "b/3", "c/1"):
        await store.create("/" + name, name.encode())
    page = await store.list("/b/", limit=2)
    assert [entry.key for entry in page.entries] == ["/b/1", "/b/2"]
    assert page.remaining == 1
    rest = await store.list("/b/", after="/b/2", limit=2)
    assert ([entry.key for entry in rest.entries], rest.remaining) == (["/b/3"], 0)
    assert [entry.key for entry in (await store.list("/")).entries] == ["/a/1", "/b/1", "/b/2", "/b/3", "/c/1"]
    assert (await store.list("/nothing/")).entries == []


async def reads_the_past(store: Store) -> None:
    """`get` and `list` as of a kept revision see what was there then."""
    first = await store.create("/a", b"one")
    other = await store.create("/b", b"bee")
    second = await store.update("/a", b"two", first)
    await store.delete("/b", other)
    then = await store.list("/", revision=other)
    assert [(e.key, e.value, e.revision) for e in then.entries] == [("/a", b"one", first), ("/b", b"bee", other)]
    assert then.revision == other
    between = await store.list("/", revision=second, after="/a")
    assert [(e.key, e.value) for e in between.entries] == [("/b", b"bee")]
    past = await store.get("/a", revision=first)
    assert past is not None
    assert past.value == b"one"
    assert await store.get("/b", revision=first) is None
    await _raises(FutureRevision, store.get("/a", revision=store.revision + 1))


async def compaction_forgets(store: Store) -> None:
    """History before the compacted revision is refused; the state at it and after it stays."""
    first = await store.create("/a", b"one")
    second = await store.update("/a", b"two", first)
    third = await store.update("/a", b"three", second)
    await store.compact(second)
    await _raises(Compacted, store.get("/a", revision=first))
    await _raises(Compacted, store.watch("/", first, lambda _: None))
    await _raises(Compacted, store.compact(second))
    await _raises(FutureRevision, store.compact(third + 1))
    kept = await store.get("/a", revision=second)
    assert kept is not None
    assert kept.value == b"two"
    seen: list[Event] = []
    await store.watch("/", second, seen.extend)
    assert [(e.value, e.previous) for e in seen] == [(b"three", b"two")]


async def watch_replays_then_follows(store: Store) -> None:
    """A watch gets the kept past once, then every commit, in order, under its prefix only."""
    first = await store.create("/a/1", b"one")
    await store.create("/b/1", b"bee")
    seen: list[Event] = []
    stop = await store.watch("/a/", 1, seen.extend)
    second = await store.update("/a/1", b"two", first)
    third = await store.delete("/a/1", second)
    stop()
    await store.create("/a/2", b"late")
    assert seen == [
        Event("/a/1", first, b"one", None),
        Event("/a/1", second, b"two", b"one"),
        Event("/a/1", third, None, b"two"),
    ]


async def watch_hears_before_the_writer(store: Store) -> None:
    """When a write returns, every watcher has been told of it."""
    seen: list[Event] = []
    await store.watch("/", store.revision, seen.extend)
    for number in range(20):
        revision = await store.create(f"/{number}", b"x")
        assert seen[-1].revision == revision


async def concurrent_writers_never_lose(store: Store) -> None:
    """Of many writers with one expectation one wins; counters kept by compare-and-swap add up."""
    revision = await store.create("/counter", b"0")
    results = await asyncio.gather(
        *(store.update("/counter", b"1", revision) for _ in range(10)), return_exceptions=True
    )
    assert sum(isinstance(result, int) for result in results) == 1
    assert sum(isinstance(result, RevisionConflict) for result in results) == 9

    async def add() -> None:
        while True:
            entry = await store.get("/counter")
            assert entry is not None
            try:
                await store.update("/counter", str(int(entry.value) + 1).encode(), entry.revision)
            except RevisionConflict:
                continue
            return

    await asyncio.gather(*(add() for _ in range(25)))
    entry = await store.get("/counter")
    assert entry is not None
    assert entry.value == b"26"


async def watches_keep_their_guarantees(store: Store) -> None:
    """The six guarantees of a watch, over a recorded history of concurrent writers and late watchers."""
    history = History(store)
    await history.watch("/", after=1)

    async def write(worker: int) -> None:
        for step in range(15):
            key = f"/{worker % 3}/{step % 4}"
            entry = await store.get(key)
            try:
                if entry is None:
                    await store.create(key, f"{worker}.{step}".encode())
                elif step % 5 == 4:
                    await store.delete(key, entry.revision)
                else:
                    await store.update(key, f"{worker}.{step}".encode(), entry.revision)
            except (KeyExists, RevisionConflict):
                continue
            if step == 7:
                await history.watch(f"/{worker % 3}/", after=max(1, store.revision - 10))

    await asyncio.gather(*(write(worker) for worker in range(6)))
    assert await check_watch(history) == []


async def large_and_odd_values(store: Store) -> None:
    """Values are bytes of any content and size; keys any text."""
    blob = bytes(range(256)) * 8_192
    await store.create("/päth/with spaces/\u2603", blob)
    await store.create("/empty", b"")
    big, empty = await store.get("/päth/with spaces/\u2603"), await store.get("/empty")
    assert big is not None
    assert empty is not None
    assert (big.value, empty.value) == (blob, b"")


async def closed_is_closed(store: Store) -> None:
    """After `close`, every call says so and closing again is harmless."""
    await store.create("/a", b"one")
    await store.close()
    await store.close()
    await _raises(StoreUnavailable, store.get("/a"))
    await _raises(StoreUnavailable, store.create("/b", b"two"))


CHECKS: tuple[Callable[[Store], Awaitable[None]], ...] = (
    creates_and_reads,
    create_refuses_a_taken_key,
    update_compares,
    delete_compares,
    guarded_writes_compare_two_keys,
    no_guarded_write_follows_that_of_its_guard,
    lists_in_order,
    reads_the_past,
    compaction_forgets,
    watch_replays_then_follows,
    watch_hears_before_the_writer,
    concurrent_writers_never_lose,
    watches_keep_their_guarantees,
    large_and_odd_values,
    closed_is_closed,
)
