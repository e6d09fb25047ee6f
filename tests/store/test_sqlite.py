"""What only the durable store has to promise: files, crashes, full disks."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from steersman.lib import failpoint
from steersman.lib.tasks import turn
from steersman.store.interface import Event, KeyExists, StoreUnavailable
from steersman.store.sqlite import SqliteStore

_WRITER = """
import asyncio, sys
from pathlib import Path
from steersman.lib.failpoint import arm_from_environment
from steersman.store.sqlite import SqliteStore

async def main(path, point, count):
    store = await SqliteStore.open(Path(path))
    start = store.revision
    async def write(n):
        revision = await store.create(f"/{start}/{n}", b"v%d" % n)
        print(f"/{start}/{n}", revision, flush=True)
    for n in range(count):
        if n == count // 2:
            arm_from_environment(point)
        await asyncio.gather(*(write(n * 4 + i) for i in range(4)))

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


async def test_survives_reopening_with_its_history(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await SqliteStore.open(path)
    first = await store.create("/a", b"one")
    second = await store.update("/a", b"two", first)
    await store.close()
    again = await SqliteStore.open(path)
    seen: list[Event] = []
    await again.watch("/", 1, seen.extend)
    assert [(e.revision, e.value, e.previous) for e in seen] == [(first, b"one", None), (second, b"two", b"one")]
    assert again.revision == second
    await again.close()


async def test_compaction_of_a_tombstone_keeps_the_revision(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    first = await store.create("/a", b"one")
    last = await store.delete("/a", first)
    await store.compact(last)
    await store.close()
    again = await SqliteStore.open(tmp_path / "store.db")
    assert again.revision == last
    assert await again.create("/a", b"two") == last + 1
    await again.close()


@pytest.mark.parametrize("point", ["store.before_commit=exit", "store.after_commit=exit"])
async def test_a_crash_loses_nothing_acknowledged(tmp_path: Path, point: str) -> None:
    path = tmp_path / "store.db"
    acknowledged: dict[str, int] = {}
    for _ in range(3):
        run = subprocess.run(
            [sys.executable, "-c", _WRITER, str(path), point, "20"], capture_output=True, text=True, check=False
        )
        assert run.returncode == 86, run.stderr
        acknowledged |= {line.split()[0]: int(line.split()[1]) for line in run.stdout.splitlines()}
    store = await SqliteStore.open(path)
    page = await store.list("/")
    found = {entry.key: entry.revision for entry in page.entries}
    assert len(acknowledged) == 3 * 40
    assert acknowledged.items() <= found.items()
    assert len(set(found.values())) == len(found)
    await store.close()


async def test_a_failed_commit_fails_its_writers_and_nothing_else(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    first = await store.create("/a", b"one")

    def full() -> None:
        raise OSError("no space left on device")

    disarm = failpoint.arm("store.before_commit", full)
    results = await asyncio.gather(
        store.update("/a", b"two", first), store.create("/b", b"bee"), return_exceptions=True
    )
    disarm()
    assert [type(result) for result in results] == [StoreUnavailable, StoreUnavailable]
    assert "no space left on device" in str(results[0])
    assert store.revision == first
    assert await store.update("/a", b"three", first) == first + 1
    assert await store.get("/b") is None
    await store.close()


async def test_two_processes_cannot_share_it(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    with pytest.raises(StoreUnavailable, match=f"is held by process {os.getpid()}"):
        await SqliteStore.open(tmp_path / "store.db")
    await store.close()


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to be read as one" * 40])
async def test_a_broken_file_is_named_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(content)
    with pytest.raises(StoreUnavailable, match=r"cannot open the store .*store\.db"):
        await SqliteStore.open(path)
    assert path.read_bytes() == content


async def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    import apsw

    path = tmp_path / "store.db"
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(StoreUnavailable, match="its format is 99"):
        await SqliteStore.open(path)


async def test_snapshot_is_a_store(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    await store.create("/a", b"one")
    await store.snapshot(tmp_path / "copy.db")
    with pytest.raises(StoreUnavailable, match=r"copy\.db exists"):
        await store.snapshot(tmp_path / "copy.db")
    await store.create("/b", b"later")
    await store.close()
    copy = await SqliteStore.open(tmp_path / "copy.db")
    assert [entry.key for entry in (await copy.list("/")).entries] == ["/a"]
    await copy.close()


async def test_what_a_write_replaced_can_be_asked_for_later(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    seen: list[Event] = []
    await store.watch("/", 1, seen.extend)
    last = await store.create("/a", b"one")
    for value in (b"two", b"three"):
        last = await store.update("/a", value, last)
    await store.delete("/a", last)
    assert [event.previous for event in seen] == [None, b"one", b"two", b"three"]
    await store.close()


async def test_a_writer_that_gives_up_takes_nothing_back(tmp_path: Path) -> None:
    """Whoever waits for the same key is told, and the write happens."""
    store = await SqliteStore.open(tmp_path / "store.db")
    first, second = (asyncio.ensure_future(store.create("/a", value)) for value in (b"one", b"two"))
    await turn()
    first.cancel()
    with pytest.raises(KeyExists):
        await second
    entry = await store.get("/a")
    assert entry is not None
    assert entry.value == b"one"
    await store.close()
