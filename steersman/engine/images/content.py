"""Blobs by digest on disk: whole, verified and never changed.

Owns `blobs/sha256/<hex>` and the half-written files under `ingest/`. A blob appears by rename, after its digest was
checked and its bytes were synced, so a crash leaves either all of it or nothing. Several processes share the
directory; each writes under an ingest directory of its own that it holds locked, so that what a dead process left can
be told and swept.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import math
import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

from steersman.engine.images.index import locked
from steersman.engine.images.reference import is_digest
from steersman.lib.failpoint import failpoint


class ContentError(Exception):
    """Bytes are not what they were said to be."""


class Ingest:
    """A blob being written. Bytes count only after `commit`."""

    def __init__(self, content: Content, path: Path) -> None:
        self._content = content
        self.path = path
        self._file = path.open("wb", buffering=0)
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append. Raises OSError, such as a full disk."""
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    @property
    def digest(self) -> str:
        """Of what was written so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def commit(self, expected: str = "", size: int = -1) -> str:
        """Sync and publish; returns the digest. Raises ContentError, leaving nothing, when it is not as expected."""
        digest = self.digest
        try:
            if size >= 0 and self.size != size:
                raise ContentError(f"size validation failed: {self.size} bytes received, expected {size}")
            if expected and expected != digest:
                raise ContentError(f"unexpected commit digest {digest}, expected {expected}")
            os.fdatasync(self._file.fileno())
            failpoint("images.before_blob_rename")
            os.rename(self.path, self._content.path(digest))
            _sync_directory(self._content.blobs)
        finally:
            self.abort()
        return digest

    def abort(self) -> None:
        """Forget it; harmless after `commit`."""
        self._file.close()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


class Content:
    """The blobs under `root`. Safe for several processes and threads at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs/sha256"
        self._ingest = root / "ingest"
        self.blobs.mkdir(parents=True, exist_ok=True)
        self._ingest.mkdir(exist_ok=True)
        self._own, self._lock = self._claim()
        self._sweep()

    def _claim(self) -> tuple[Path, int]:
        own = self._ingest / secrets.token_hex(8)
        with locked(self._ingest / "lock"):
            own.mkdir(mode=0o700)
            fd = os.open(own, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(fd, fcntl.LOCK_EX)
        return own, fd

    def _sweep(self) -> None:
        """Remove what processes that are gone had half written."""
        with locked(self._ingest / "lock"):
            for left in self._ingest.iterdir():
                if left == self._own or not left.is_dir():
                    continue
                fd = os.open(left, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(left, ignore_errors=True)
                except BlockingIOError:
                    continue
                finally:
                    os.close(fd)

    def close(self) -> None:
        """Give up the ingest directory."""
        if self._lock >= 0:
            shutil.rmtree(self._own, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1

    def temporary(self, suffix: str = "") -> Path:
        """A fresh name under this process's ingest directory, on the store's file system."""
        return self._own / f"{secrets.token_hex(8)}{suffix}"

    def path(self, digest: str) -> Path:
        """Where a blob lies. Raises ContentError for what is no SHA-256 digest."""
        if not is_digest(digest):
            raise ContentError(f"invalid digest {digest!r}")
        return self.blobs / digest[7:]

    def has(self, digest: str) -> bool:
        """Whether the blob is here."""
        return self.path(digest).exists()

    def size(self, digest: str) -> int:
        """Bytes of a blob. Raises FileNotFoundError."""
        return self.path(digest).stat().st_size

    def read(self, digest: str, limit: int = 64 << 20) -> bytes:
        """A small blob (manifest, config). Raises FileNotFoundError, ContentError when over `limit` bytes."""
        path = self.path(digest)
        if path.stat().st_size > limit:
            raise ContentError(f"{digest} is larger than {limit} bytes")
        return path.read_bytes()

    def writer(self) -> Ingest:
        """Start a blob."""
        return Ingest(self, self.temporary())

    def add(self, data: bytes) -> str:
        """Store a small blob; returns its digest."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if not self.has(digest):
            writer = self.writer()
            try:
                writer.write(data)
                writer.commit(digest)
            finally:
                writer.abort()
        return digest

    def sweep(self, keep: Iterable[str], *, newer_than: float = math.inf) -> None:
        """Delete every blob that is not in `keep`, nor younger than `newer_than` (Unix seconds)."""
        names = {digest[7:] for digest in keep}
        for path in self.blobs.iterdir():
            if path.name not in names and path.stat().st_mtime <= newer_than:
                path.unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
