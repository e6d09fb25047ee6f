"""What a COPY or ADD takes: files of the build context, or of another stage, chosen by patterns.

Owns the choice of sources and their digest for the cache. It never leaves the context: names with `..` that would are
refused, and links are followed as if the context were the root directory. Called by `builder`. Source: the
Dockerfile reference, COPY.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from steersman.engine.images.build.ignore import Ignore, pattern
from steersman.engine.interface import RuntimeFailure
from steersman.engine.runtime import rootfs

_PIECE = 1 << 20


class SourceError(Exception):
    """A source is not there, or not allowed."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file or directory to copy. `path`: on the host, links followed; `inside`: as it was named in the context."""

    path: Path
    inside: str

    @property
    def name(self) -> str:
        """What it is called where it is copied into a directory."""
        return posixpath.basename(self.inside)

    @property
    def is_directory(self) -> bool:
        """Whether its contents are what is copied."""
        return self.path.is_dir() and not self.path.is_symlink()


class Context:
    """A directory to copy from."""

    def __init__(self, root: Path, ignore: Ignore | None = None) -> None:
        self.root = root.resolve()
        self.ignore = ignore or Ignore(())

    def find(self, word: str) -> list[Source]:
        """What a source word means, sorted. Raises SourceError when that is nothing."""
        if posixpath.normpath(word).startswith("../") or word == "..":
            raise SourceError(f"forbidden path outside the build context: {word}")
        cleaned = posixpath.normpath("/" + word).lstrip("/")
        if not cleaned:
            return [Source(self.root, "")]
        if any(char in cleaned for char in "*?["):
            found = sorted(self._match(cleaned.split("/"), ""))
        else:
            found = [cleaned] if self._wanted(cleaned) else []
        out = [Source(path, each) for each in found if (path := self._path(each)) is not None]
        if not out:
            raise SourceError(f'failed to compute cache key: "/{cleaned}": not found')
        return out

    def _wanted(self, path: str) -> bool:
        if not self.ignore.ignores(path):
            return True
        found = self._path(path) if self.ignore.has_exceptions else None
        return found is not None and found.is_dir()

    def _match(self, parts: list[str], inside: str) -> Iterator[str]:
        rule = pattern(parts[0])
        directory = self._path(inside)
        if directory is None or not directory.is_dir():
            return
        for name in sorted(os.listdir(directory)):
            if not rule.fullmatch(name):
                continue
            if len(parts) > 1:
                yield from self._match(parts[1:], f"{inside}{name}/")
            elif not self.ignore.ignores(f"{inside}{name}"):
                yield f"{inside}{name}"

    def _path(self, inside: str) -> Path | None:
        """Where a path of the context is on the host, links followed within the context only; None: nowhere."""
        try:
            return Path(rootfs.inside(str(self.root), inside))
        except RuntimeFailure:
            return None

    def walk(self, source: Source) -> Iterator[tuple[str, Path]]:
        """(path relative to the source, path on the host) of everything in it, parents first; "" is itself."""
        yield "", source.path
        if source.is_directory:
            yield from self._below(source.path, "", source.inside)

    def _below(self, directory: Path, relative: str, inside: str) -> Iterator[tuple[str, Path]]:
        with os.scandir(directory) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            path = f"{inside}/{entry.name}" if inside else entry.name
            below = f"{relative}{entry.name}"
            ignored = self.ignore.ignores(path)
            is_directory = entry.is_dir(follow_symlinks=False)
            if not ignored:
                yield below, Path(entry.path)
            if is_directory and (not ignored or self.ignore.has_exceptions):
                yield from self._below(Path(entry.path), f"{below}/", path)

    def digest(self, sources: Sequence[Source]) -> str:
        """What the sources are, times aside: equal digests, equal layers."""
        total = hashlib.sha256()
        for source in sources:
            for relative, path in self.walk(source):
                found = path.lstat()
                total.update(
                    f"{source.name}\0{relative}\0{stat.S_IFMT(found.st_mode)}\0".encode(errors="surrogateescape")
                )
                total.update(f"{stat.S_IMODE(found.st_mode)}\0{found.st_uid}\0{found.st_gid}\0".encode())
                if stat.S_ISLNK(found.st_mode):
                    total.update(os.fsencode(os.readlink(path)))
                elif stat.S_ISREG(found.st_mode):
                    total.update(_file_digest(path))
        return total.hexdigest()


def _file_digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
