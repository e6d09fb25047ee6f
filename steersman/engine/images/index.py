"""Which images are here: one JSON file, replaced whole, read by every process that cares.

Owns `index.json` and its lock. Writers read, change and rename under the lock; readers notice by the file's identity.
Small on purpose: a machine has hundreds of images, not millions, and a file that `cat` shows is easy to mend.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec


class Layer(msgspec.Struct, frozen=True):
    """A layer as the manifest names it and as the config names it. `size` is of the compressed blob, in bytes."""

    digest: str
    diff_id: str
    media_type: str
    size: int


class Record(msgspec.Struct):
    """One image. `manifests` are blobs to keep, `manifest` the one for this machine; `size` is unpacked bytes."""

    id: str
    manifest: str
    manifests: list[str]
    layers: list[Layer]
    tags: list[str] = []
    digests: list[str] = []
    size: int = 0
    created_at: float = 0
    pinned: bool = False


class IndexDamaged(Exception):
    """`index.json` cannot be read; the message says which file, so that a person can decide."""


class Index:
    """The records by image id."""

    def __init__(self, root: Path) -> None:
        self._path = root / "index.json"
        self._lock = root / "index.lock"
        self._seen: tuple[int, int, int] | None = None
        self._records: dict[str, Record] = {}
        self._decoder = msgspec.json.Decoder(dict[str, Record])

    def read(self) -> dict[str, Record]:
        """Records as they are on disk now; not to be changed. Raises IndexDamaged."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._seen = None
            self._records = dict[str, Record]()
            return self._records
        seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        if seen != self._seen:
            try:
                self._records = self._decoder.decode(self._path.read_bytes())
            except msgspec.MsgspecError as error:
                raise IndexDamaged(f"cannot read {self._path}: {error}") from error
            self._seen = seen
        return self._records

    @contextlib.contextmanager
    def change(self) -> Iterator[dict[str, Record]]:
        """Records to change; written when the block ends without an error. Waits while another process changes them."""
        with locked(self._lock):
            records = Index(self._path.parent).read()  # a copy: readers in other threads keep theirs
            before = msgspec.json.encode(records)
            yield records
            if msgspec.json.encode(records) != before:
                self._write(records)

    def _write(self, records: dict[str, Record]) -> None:
        fresh = self._path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(records), indent=1))
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(self._path)
        fd = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        self._seen = None


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock file while the block runs."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
