"""The durable store: SQLite by apsw, one writer thread with group commit.

Owns one database file and the lock beside it. Every write is one row of an append-only log whose row id is the
revision; the index in memory knows which rows are live. Compare-and-swap is decided on the event loop, at once, against
what is committed plus what is on its way; the writer thread makes whole batches durable (`synchronous=FULL`) and only
then do writers resume and watchers hear of them. It never decodes a value.

When a commit fails (disk full, I/O error) every write that was on its way fails with StoreUnavailable, since a later
one may have been decided on an earlier one; nothing that was acknowledged is touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import apsw

from steersman.lib.failpoint import failpoint
from steersman.store.index import FIRST_REVISION, Index, Watchers, Write
from steersman.store.interface import (
    Entry,
    Event,
    Guard,
    GuardFailed,
    KeyExists,
    Page,
    RevisionConflict,
    Sink,
    StoreUnavailable,
)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS log (revision INTEGER PRIMARY KEY, key TEXT NOT NULL, value BLOB) STRICT;
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
"""
FORMAT = 1
_BATCH = 1_000  # writes per transaction at most, so that one slow commit does not hold everybody


@dataclass(slots=True, eq=False)
class _Pending:
    """A write between its decision and its commit. `value` None deletes; `others` wait for it besides its writer."""

    revision: int
    key: str
    value: bytes | None
    done: asyncio.Future[int]
    others: list[asyncio.Future[None]]


@dataclass(slots=True)
class _Job:
    """Work for the writer thread that is not a write of a key."""

    run: Callable[[apsw.Connection], None]
    done: asyncio.Future[None]


class SqliteStore:
    """Implements `Store` on one file. Open it with `SqliteStore.open` on the loop that will use it."""

    def __init__(self, path: Path, lock: int, connection: apsw.Connection, index: Index) -> None:
        self._path = path
        self._lock = lock
        self._reader = connection
        self._index = index
        self._watchers = Watchers()
        self._loop = asyncio.get_running_loop()
        self._next = index.revision
        self._tips: dict[str, _Pending] = {}  # the newest uncommitted write per key
        self._uncommitted: dict[int, _Pending] = {}
        self._generation = 0  # raised when a failed commit takes back what was on its way
        self._accepted: list[_Pending] = []  # in this turn of the loop, not handed to the writer thread yet
        self._queue: queue.SimpleQueue[tuple[int, list[_Pending]] | _Job | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._write_loop, name="store-writer", daemon=True)
        self._thread.start()

    @classmethod
    async def open(cls, path: Path) -> SqliteStore:
        """Open or create the database. Raises StoreUnavailable saying what is wrong with it."""
        lock, connection, index = await asyncio.get_running_loop().run_in_executor(None, _prepare, path)
        return cls(path, lock, connection, index)

    shared = False

    @property
    def revision(self) -> int:
        """The newest committed revision."""
        return self._index.revision

    def size(self) -> int:
        """Bytes of the database and of what is on its way into it; 0 when they cannot be looked at."""
        files = (self._path, self._path.with_name(self._path.name + "-wal"))
        try:
            return sum(file.stat().st_size for file in files if file.exists())
        except OSError:
            return 0

    # Reading ---------------------------------------------------------------------------------------------------

    def _value(self, revision: int) -> bytes | None:
        if not revision:
            return None
        row = self._reader.execute("SELECT value FROM log WHERE revision = ?", (revision,)).get
        if row is None:
            raise StoreUnavailable(f"cannot read revision {revision} from {self._path}: the row is missing")
        return bytes(row)  # type: ignore[arg-type]

    def _entry(self, key: str, revision: int) -> Entry | None:
        value = self._value(revision)
        return None if value is None else Entry(key, value, revision)

    async def fresh(self) -> None:
        """Every write is this process's own."""
        self._open()

    async def get(self, key: str, *, revision: int = 0) -> Entry | None:
        """The entry now, or as of `revision`."""
        self._open()
        return self._entry(key, self._index.at(key, revision) if revision else self._index.live(key))

    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page:
        """Entries in key order."""
        self._open()
        chosen, remaining = self._index.page(prefix, after, limit, revision)
        entries = [entry for key, at in chosen if (entry := self._entry(key, at)) is not None]
        return Page(entries, revision or self._index.revision, remaining)

    async def watch(self, prefix: str, after: int, sink: Sink) -> Callable[[], None]:
        """Feed `sink` the kept past and then every commit."""
        self._open()
        self._index.check(after)
        past = [self._event(write) for write in self._index.since(after, prefix)]
        if past:
            sink(past)
        return self._watchers.add(prefix, sink)

    def _event(self, write: Write) -> Event:
        value = None if write.deleted else self._value(write.revision)
        return Event(write.key, write.revision, value, self._value(write.previous))

    # Deciding --------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")

    def _tip(self, key: str) -> int:
        pending = self._tips.get(key)
        if pending is None:
            return self._index.live(key)
        return 0 if pending.value is None else pending.revision

    async def _settled(self, key: str) -> bool:
        """Wait for the uncommitted write of `key`; False when there was none, so that a refusal is final."""
        pending = self._tips.get(key)
        if pending is None:
            return False
        settled: asyncio.Future[None] = self._loop.create_future()
        pending.others.append(settled)
        await settled
        return True

    def _submit(self, key: str, value: bytes | None) -> asyncio.Future[int]:
        """What the writer awaits; when it gives up, the write happens all the same."""
        self._next += 1
        pending = _Pending(self._next, key, value, self._loop.create_future(), [])
        self._tips[key] = pending
        self._uncommitted[pending.revision] = pending
        if not self._accepted:
            self._loop.call_soon(self._hand_over)
        self._accepted.append(pending)
        return pending.done

    def _hand_over(self) -> None:
        """What this turn of the loop has accepted goes to the writer thread at once: each waking of it costs as much as
        several writes, and a commit more."""
        if self._accepted:
            self._queue.put((self._generation, self._accepted))
            self._accepted = []

    async def create(self, key: str, value: bytes, *, guard: Guard | None = None) -> int:
        """Write a new key, durably."""
        self._open()
        while self._tip(key):
            if not await self._settled(key):
                raise KeyExists(key)
        await self._check(guard)
        return await self._submit(key, value)

    async def update(self, key: str, value: bytes, expected: int, *, guard: Guard | None = None) -> int:
        """Replace a value by compare-and-swap, durably."""
        await self._expect(key, expected)
        await self._check(guard)
        return await self._submit(key, value)

    async def delete(self, key: str, expected: int, *, guard: Guard | None = None) -> int:
        """Remove a key by compare-and-swap, durably."""
        await self._expect(key, expected)
        await self._check(guard)
        return await self._submit(key, None)

    async def _check(self, guard: Guard | None) -> None:
        """A write on its way counts: what is decided now becomes durable after it. Waits only to refuse."""
        if guard is not None and self._tip(guard.key) != guard.revision:
            await self._settled(guard.key)
            raise GuardFailed(guard.key)

    async def _expect(self, key: str, expected: int) -> None:
        self._open()
        while not (tip := self._tip(key)) or tip != expected:
            if not await self._settled(key):
                raise RevisionConflict(key, self._entry(key, tip))
            self._open()

    # Committing ------------------------------------------------------------------------------------------------

    def _write_loop(self) -> None:
        """The writer thread: take what waits, commit it together, report to the loop."""
        connection = _connect(self._path)
        generation, stopping = 0, False
        while not stopping:
            batch: list[_Pending] = []
            jobs: list[_Job] = []
            item = self._queue.get()
            while True:
                if item is None:
                    stopping = True
                elif isinstance(item, _Job):
                    jobs.append(item)
                elif item[0] == generation:
                    batch += item[1]
                if stopping or len(batch) >= _BATCH:
                    break
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            if batch:
                error = _commit(connection, batch)
                generation += error is not None
                self._report(self._committed if error is None else self._failed, batch, error)
            for job in jobs:
                error = _attempt(lambda job=job: job.run(connection))
                self._report(self._job_done, job, error)
        connection.close()

    def _report(self, callback: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody is left to be told
            self._loop.call_soon_threadsafe(callback, *arguments)

    def _committed(self, batch: Sequence[_Pending], _: None) -> None:
        events = []
        for pending in batch:
            write = self._index.apply(pending.revision, pending.key, deleted=pending.value is None)
            before = partial(self._value, write.previous) if write.previous else None
            events.append(Event(pending.key, pending.revision, pending.value, before))
            del self._uncommitted[pending.revision]
            if self._tips.get(pending.key) is pending:
                del self._tips[pending.key]
        self._watchers.deliver(events)
        for pending in batch:
            if not pending.done.done():
                pending.done.set_result(pending.revision)
            if pending.others:
                _settle(pending)

    def _failed(self, _: Sequence[_Pending], error: Exception) -> None:
        """Take back everything that is not committed: the batch, and what was decided after it."""
        for pending in self._uncommitted.values():
            if not pending.done.done():
                pending.done.set_exception(StoreUnavailable(f"cannot write to {self._path}: {error}"))
                pending.done.exception()  # retrieved: a cancelled writer may never look
            _settle(pending)
        self._uncommitted.clear()
        self._accepted.clear()
        self._tips.clear()
        self._generation += 1
        self._next = self._index.revision

    def _job_done(self, job: _Job, error: Exception | None) -> None:
        if job.done.done():
            return
        if error is None:
            job.done.set_result(None)
        else:
            job.done.set_exception(StoreUnavailable(f"cannot write to {self._path}: {error}"))

    async def compact(self, revision: int) -> None:
        """Forget history before `revision`."""
        self._open()
        dropped = self._index.compact(revision)

        def run(connection: apsw.Connection) -> None:
            with connection:
                connection.executemany("DELETE FROM log WHERE revision = ?", ((at,) for at in dropped))
                connection.execute("REPLACE INTO meta VALUES ('compacted', ?)", (revision,))

        await self._run(run)

    async def _run(self, work: Callable[[apsw.Connection], None]) -> None:
        job = _Job(work, self._loop.create_future())
        self._hand_over()
        self._queue.put(job)
        await asyncio.shield(job.done)

    async def snapshot(self, target: Path) -> None:
        """Write a consistent copy of the whole store to `target` (a new file)."""
        self._open()
        await self._run(lambda connection: _vacuum_into(connection, target))

    async def close(self) -> None:
        """Make durable what is accepted, then stop."""
        if self._closed:
            return
        self._closed = True
        self._hand_over()
        self._queue.put(None)
        await self._loop.run_in_executor(None, self._thread.join)
        await asyncio.sleep(0)  # noqa: TID251  let the last report run
        self._reader.close()
        os.close(self._lock)


def _settle(pending: _Pending) -> None:
    """Tell those who wait for another's write that it is decided."""
    for other in pending.others:
        if not other.done():
            other.set_result(None)


def _attempt(work: Callable[[], None]) -> Exception | None:
    try:
        work()
    except (apsw.Error, OSError) as error:
        return error
    return None


def _commit(connection: apsw.Connection, batch: Sequence[_Pending]) -> Exception | None:
    def work() -> None:
        connection.execute("BEGIN IMMEDIATE")  # a savepoint, which `with` would make, costs twice as much
        try:
            connection.executemany("INSERT INTO log VALUES (?, ?, ?)", [(p.revision, p.key, p.value) for p in batch])
            failpoint("store.before_commit")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        failpoint("store.after_commit")

    return _attempt(work)


def _vacuum_into(connection: apsw.Connection, target: Path) -> None:
    if target.exists():
        raise FileExistsError(f"{target} exists")
    connection.execute("VACUUM INTO ?", (str(target),))


def _connect(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(5_000)
    connection.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=500")
    connection.execute("PRAGMA cache_size=-4096")  # KiB; the API server caches objects itself
    return connection


def _prepare(path: Path) -> tuple[int, apsw.Connection, Index]:
    """Lock and open the file and rebuild the index. Raises StoreUnavailable."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = take_lock(path.with_name(path.name + ".lock"))
    except OSError as error:
        raise StoreUnavailable(f"cannot open the store {path}: {error.strerror}") from error
    try:
        connection = _connect(path)
        _check_format(connection)
        return lock, connection, _load(connection)
    except (apsw.Error, StoreUnavailable) as error:
        os.close(lock)
        raise StoreUnavailable(f"cannot open the store {path}: {error}") from error


def take_lock(path: Path) -> int:
    """Hold the store of which `path` is the lock; returns the descriptor. Raises StoreUnavailable, OSError."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(lock, 20, 0).decode(errors="replace").strip()
        os.close(lock)
        raise StoreUnavailable(f"{path} is held by process {holder or 'unknown'}") from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _check_format(connection: apsw.Connection) -> None:
    found = connection.execute("PRAGMA user_version").get
    if found == 0:
        with connection:
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA user_version={FORMAT}")
    elif found != FORMAT:
        raise StoreUnavailable(f"its format is {found}, this version of steersman reads {FORMAT}")


def _load(connection: apsw.Connection) -> Index:
    index = Index()
    for revision, key, deleted in connection.execute("SELECT revision, key, value IS NULL FROM log ORDER BY revision"):
        index.apply(int(str(revision)), str(key), deleted=bool(deleted))
    compacted = connection.execute("SELECT value FROM meta WHERE name = 'compacted'").get
    floor = int(str(compacted)) if compacted is not None else FIRST_REVISION
    index.restore(floor, floor)
    return index
