"""The whole state of a SQLite store as one file, and back.

Owns the making, checking and putting in place of such files, and `defragment`. Called by the CLI, in its own process:
a snapshot is read beside a running server, a restore needs the store's lock. A snapshot is a database of the store's
own format with a hash of its content, so that a changed byte is noticed. Nothing is replaced before what replaces it is
checked and on the disk.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import apsw

from steersman.store.interface import StoreError
from steersman.store.sqlite import FORMAT, take_lock

_HASH = "snapshot_hash"
_SUFFIXES = ("-wal", "-shm")


class SnapshotError(StoreError):
    """A snapshot cannot be made, read or restored; the text says which and why, and nothing was changed."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a snapshot holds. `size` in bytes."""

    hash: int
    revision: int
    keys: int
    size: int


def save(database: Path, target: Path) -> Summary:
    """Write the state of `database`, which a server may be writing to, to `target`. Raises SnapshotError."""
    if not database.exists():
        raise SnapshotError(f"there is no state in {database} yet")
    with _beside(target) as part, _errors(f"cannot save {database} to {target}"):
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # it holds secrets
        source = _open(database, apsw.SQLITE_OPEN_READONLY)
        try:
            _check_format(source)
            source.execute("VACUUM INTO ?", (str(part),))
        finally:
            source.close()
        copy = _open(part, apsw.SQLITE_OPEN_READWRITE)
        try:
            copy.execute("REPLACE INTO meta VALUES (?, ?)", (_HASH, _hash(copy)))
        finally:
            copy.close()
        _put(part, target)
    return status(target)


def status(snapshot: Path, *, check_hash: bool = True) -> Summary:
    """What the file holds, after checking all of it. Raises SnapshotError."""
    if not snapshot.is_file():
        raise SnapshotError(f"there is no file {snapshot}")
    with _errors(f"{snapshot} is no snapshot, or a broken one"):
        # immutable: a snapshot is only read, and nothing is written beside it
        connection = _open(snapshot, apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
        try:
            return _checked(connection, snapshot, check_hash)
        finally:
            connection.close()


def restore(snapshot: Path, database: Path, *, bump: int = 0, check_hash: bool = True) -> Summary:
    """Put the snapshot's state in the place of `database`, whose server must have stopped. Raises SnapshotError.

    `bump` adds that much to the revision and forgets the past, so that clients which have seen later revisions than the
    snapshot's read everything anew (etcdutl's --bump-revision with --mark-compacted).
    """
    found = status(snapshot, check_hash=check_hash)
    with _beside(database) as part, _errors(f"cannot restore {snapshot} to {database}"):
        database.parent.mkdir(parents=True, exist_ok=True)
        lock = take_lock(database.with_name(database.name + ".lock"))
        try:
            shutil.copyfile(snapshot, part)
            part.chmod(0o600)
            _prepare(part, found, bump)
            _settle(database)
            _put(part, database)
        finally:
            os.close(lock)
    return found


def defragment(database: Path) -> tuple[int, int]:
    """Give back the space of what was compacted; a server may go on meanwhile, its writes wait.

    Returns the size in bytes before and after. Raises SnapshotError.
    """
    if not database.exists():
        raise SnapshotError(f"there is no state in {database} yet")
    with _errors(f"cannot defragment {database}"):
        before = database.stat().st_size
        connection = _open(database, apsw.SQLITE_OPEN_READWRITE)
        try:
            _check_format(connection)
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            connection.close()
        return before, database.stat().st_size


@contextmanager
def _errors(what: str) -> Iterator[None]:
    try:
        yield
    except SnapshotError as error:
        raise SnapshotError(f"{what}: {error}") from error
    except (apsw.Error, OSError, StoreError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SnapshotError(f"{what}: {why}") from error


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A name to write to before it is renamed to `target`; nothing of it stays."""
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        yield part
    finally:
        for suffix in ("", "-journal", *_SUFFIXES):
            with suppress(OSError):
                os.unlink(f"{part}{suffix}")


def _open(path: Path, flags: int) -> apsw.Connection:
    name = f"{path.absolute().as_uri()}?immutable=1" if flags & apsw.SQLITE_OPEN_URI else str(path)
    connection = apsw.Connection(name, flags=flags)
    connection.set_busy_timeout(10_000)
    return connection


def _check_format(connection: apsw.Connection) -> None:
    found = connection.execute("PRAGMA user_version").get
    if found != FORMAT:
        raise SnapshotError(f"its format is {found}, this version of steersman reads {FORMAT}")


def _checked(connection: apsw.Connection, path: Path, check_hash: bool) -> Summary:
    pages = int(str(connection.execute("PRAGMA page_count").get)) * int(str(connection.execute("PRAGMA page_size").get))
    size = path.stat().st_size
    if size != pages:
        raise SnapshotError(f"it has {size} bytes instead of {pages}")
    _check_format(connection)
    if (problem := connection.execute("PRAGMA integrity_check(1)").get) != "ok":
        raise SnapshotError(str(problem))
    digest = _hash(connection)
    meta = {str(name): int(str(value)) for name, value in connection.execute("SELECT name, value FROM meta")}
    if check_hash and _HASH not in meta:
        raise SnapshotError("it has no hash: a copied database, not a snapshot (--skip-hash-check takes it anyway)")
    if check_hash and meta[_HASH] != digest:
        raise SnapshotError(f"its hash is {digest:x} instead of {meta[_HASH]:x}")
    revision = connection.execute("SELECT max(revision) FROM log").get
    keys = connection.execute(
        "SELECT count(*) FROM (SELECT value, max(revision) FROM log GROUP BY key) WHERE value IS NOT NULL"
    ).get
    newest = max(int(str(revision or 1)), meta.get("compacted", 1))
    return Summary(digest, newest, int(str(keys)), size)


def _hash(connection: apsw.Connection) -> int:
    """Of all rows of the log, 63 bits."""
    digest = hashlib.sha256()
    for revision, key, value in connection.execute("SELECT revision, key, value FROM log ORDER BY revision"):
        size = -1 if value is None else len(bytes(value))  # type: ignore[arg-type]
        digest.update(f"{revision} {len(str(key).encode())} {size} {key}".encode())
        digest.update(b"" if value is None else bytes(value))  # type: ignore[arg-type]
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def _prepare(part: Path, found: Summary, bump: int) -> None:
    """Make a snapshot's copy a store."""
    connection = _open(part, apsw.SQLITE_OPEN_READWRITE)
    try:
        with connection:
            connection.execute("DELETE FROM meta WHERE name = ?", (_HASH,))
            if bump:
                connection.execute("DELETE FROM log WHERE revision NOT IN (SELECT max(revision) FROM log GROUP BY key)")
                connection.execute("DELETE FROM log WHERE value IS NULL")
                connection.execute("REPLACE INTO meta VALUES ('compacted', ?)", (found.revision + bump,))
    finally:
        connection.close()


def _settle(database: Path) -> None:
    """Take what the old state's write-ahead log holds into the old file: the log would not fit the new one."""
    if database.exists():
        with suppress(apsw.Error):  # unreadable: there is nothing to keep
            old = _open(database, apsw.SQLITE_OPEN_READWRITE)
            old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            old.close()
    for suffix in _SUFFIXES:
        database.with_name(database.name + suffix).unlink(missing_ok=True)


def _put(part: Path, target: Path) -> None:
    """Rename, durably."""
    for path, rename in ((part, True), (target.parent, False)):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if rename:
            part.replace(target)
