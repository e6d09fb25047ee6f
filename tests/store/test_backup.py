"""A store's state as one file: whole, checked, and never in the way of the state that is there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from steersman.store import backup
from steersman.store.backup import SnapshotError
from steersman.store.interface import Compacted
from steersman.store.sqlite import SqliteStore


async def filled(path: Path, count: int = 50) -> SqliteStore:
    store = await SqliteStore.open(path)
    for number in range(count):
        await store.create(f"/a/{number:03}", b"value %d " % number * 20)
    await store.delete("/a/000", 2)
    return store


async def values(path: Path) -> dict[str, bytes]:
    store = await SqliteStore.open(path)
    found = {entry.key: entry.value for entry in (await store.list("/")).entries}
    await store.close()
    return found


async def test_save_beside_a_running_server_and_restore(tmp_path: Path) -> None:
    database, snapshot = tmp_path / "store.db", tmp_path / "snapshot.db"
    store = await filled(database)
    saved = backup.save(database, snapshot)
    assert (saved.revision, saved.keys) == (store.revision, 49)
    assert backup.status(snapshot) == saved
    assert snapshot.stat().st_mode & 0o777 == 0o600
    before = {entry.key: entry.value for entry in (await store.list("/")).entries}
    await store.create("/later", b"x")
    await store.close()
    backup.restore(snapshot, database)
    assert await values(database) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["snapshot.db", "store.db", "store.db.lock"]
    again = await SqliteStore.open(database)
    assert again.revision == saved.revision
    first = await again.get("/a/000", revision=2)  # the past is there too
    assert first is not None
    assert await again.create("/b", b"") == saved.revision + 1
    await again.close()


async def test_restore_over_a_log_that_was_not_merged(tmp_path: Path) -> None:
    """A server that was killed leaves its write-ahead log: it must not be played into the restored file."""
    database, snapshot, killed = tmp_path / "store.db", tmp_path / "snapshot.db", tmp_path / "killed" / "store.db"
    store = await filled(database)
    backup.save(database, snapshot)
    for number in range(50):
        await store.create(f"/later/{number}", b"x" * 5000)
    killed.parent.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(f"{database}{suffix}", f"{killed}{suffix}")
    await store.close()
    backup.restore(snapshot, killed)
    assert len(await values(killed)) == 49


async def test_restore_with_a_later_revision_forgets_the_past(tmp_path: Path) -> None:
    database, snapshot = tmp_path / "store.db", tmp_path / "snapshot.db"
    await (await filled(database)).close()
    saved = backup.save(database, snapshot)
    backup.restore(snapshot, database, bump=1000)
    store = await SqliteStore.open(database)
    assert store.revision == saved.revision + 1000
    with pytest.raises(Compacted):
        await store.watch("/", saved.revision, lambda events: None)
    assert len((await store.list("/")).entries) == 49
    await store.close()
    assert backup.save(database, snapshot).revision == saved.revision + 1000


async def test_restore_refuses_while_a_server_runs(tmp_path: Path) -> None:
    database, snapshot = tmp_path / "store.db", tmp_path / "snapshot.db"
    store = await filled(database)
    backup.save(database, snapshot)
    with pytest.raises(SnapshotError, match="is held by process"):
        backup.restore(snapshot, database)
    await store.create("/still", b"here")
    await store.close()
    assert len(await values(database)) == 50


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def longer(data: bytes) -> bytes:
    return data + b"x"


def changed(data: bytes) -> bytes:
    assert b"value 17 " in data
    return data.replace(b"value 17 ", b"Value 17 ")


def torn(data: bytes) -> bytes:
    return data[:4096] + bytes(4096) + data[8192:]


def foreign(data: bytes) -> bytes:
    return b"\x7fELF" + data[4:]


def nothing(data: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("harm", [cut, longer, changed, torn, foreign, nothing], ids=lambda harm: harm.__name__)
async def test_broken_files_are_refused_and_nothing_is_lost(tmp_path: Path, harm: Callable[[bytes], bytes]) -> None:
    database, snapshot = tmp_path / "store.db", tmp_path / "snapshot.db"
    await (await filled(database)).close()
    backup.save(database, snapshot)
    snapshot.write_bytes(harm(snapshot.read_bytes()))
    for attempt in (lambda: backup.status(snapshot), lambda: backup.restore(snapshot, database)):
        with pytest.raises(SnapshotError, match=r"snapshot\.db is no snapshot, or a broken one: "):
            attempt()
    assert len(await values(database)) == 49
    assert not list(tmp_path.glob("*.part*"))


def test_a_database_of_somebody_else(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    connection = apsw.Connection(str(other))
    connection.execute("CREATE TABLE log (a); PRAGMA user_version=1")
    connection.close()
    for attempt in (lambda: backup.status(other), lambda: backup.restore(other, tmp_path / "store.db")):
        with pytest.raises(SnapshotError, match="no snapshot"):
            attempt()
    with pytest.raises(SnapshotError, match="there is no file"):
        backup.status(tmp_path / "none")
    with pytest.raises(SnapshotError, match="there is no state"):
        backup.save(tmp_path / "none", tmp_path / "snapshot.db")
    assert [path.name for path in tmp_path.iterdir()] == ["other.db"]


async def test_a_copied_database_is_taken_when_asked_for(tmp_path: Path) -> None:
    database, copy = tmp_path / "store.db", tmp_path / "copy.db"
    await (await filled(database)).close()
    shutil.copy(database, copy)
    with pytest.raises(SnapshotError, match="it has no hash"):
        backup.restore(copy, database)
    assert backup.restore(copy, database, check_hash=False).keys == 49


async def test_a_full_disk_leaves_the_earlier_snapshot(tmp_path: Path) -> None:
    database, target = tmp_path / "store.db", tmp_path / "folder"
    await (await filled(database)).close()
    target.mkdir()
    with pytest.raises(SnapshotError, match="cannot save"):
        backup.save(database, target)  # cannot be replaced
    with pytest.raises(SnapshotError, match="cannot save"):
        backup.save(database, tmp_path / "none" / "snapshot.db")
    assert not list(tmp_path.glob("*.part*"))


async def test_defragmenting_gives_space_back_beside_a_server(tmp_path: Path) -> None:
    database = tmp_path / "store.db"
    store = await filled(database)
    at = await store.create("/big", b"0" * 100_000)
    for _ in range(20):
        at = await store.update("/big", b"1" * 100_000, at)
    await store.compact(at)
    backup.defragment(database)
    before, after = backup.defragment(database)
    assert after <= before < 400_000
    await store.update("/big", b"small", at)
    await store.close()
    assert (await values(database))["/big"] == b"small"
