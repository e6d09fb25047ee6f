"""What a step changed, as a layer: overlayfs's upper directory to a compressed archive in the content store.

Owns the translation of whiteouts back into OCI's form. Runs in a worker thread. Source: OCI image layer specification.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

from steersman.engine.images.content import Content
from steersman.engine.images.index import Layer
from steersman.engine.images.manifest import OCI_LAYER

MEDIA_TYPE = f"{OCI_LAYER}+zstd"
_OPAQUE = "trusted.overlay.opaque"


class _Sink:
    """Takes an archive: hashes it, compresses it, stores it."""

    def __init__(self, content: Content) -> None:
        import zstandard

        self._writer = content.writer()
        self._plain = hashlib.sha256()
        self._compressor = zstandard.ZstdCompressor(level=3, threads=-1).compressobj()

    def write(self, data: bytes) -> int:
        """More of the archive."""
        self._plain.update(data)
        self._writer.write(self._compressor.compress(data))
        return len(data)

    def finish(self) -> Layer:
        """Publish the blob."""
        self._writer.write(self._compressor.flush())
        size = self._writer.size
        return Layer(self._writer.commit(), f"sha256:{self._plain.hexdigest()}", MEDIA_TYPE, size)

    def abort(self) -> None:
        """Forget it; harmless after `finish`."""
        self._writer.abort()


def is_empty(upper: Path) -> bool:
    """Whether a step changed nothing."""
    return not any(os.scandir(upper))


def pack(upper: Path, content: Content) -> Layer:
    """Store the changes in `upper`. Raises OSError."""
    sink = _Sink(content)
    try:
        with tarfile.open(fileobj=sink, mode="w|", bufsize=1 << 18, format=tarfile.PAX_FORMAT) as tar:  # type: ignore[arg-type]
            links: dict[tuple[int, int], str] = {}
            for name, path in _walk(upper, ""):
                _add(tar, name, path, links)
        return sink.finish()
    finally:
        sink.abort()


def _walk(directory: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    with os.scandir(directory) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = Path(entry.path)
        yield f"{prefix}{entry.name}", path
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(path, f"{prefix}{entry.name}/")


def _add(tar: tarfile.TarFile, name: str, path: Path, links: dict[tuple[int, int], str]) -> None:
    found = path.lstat()
    mode = found.st_mode
    if stat.S_ISCHR(mode) and found.st_rdev == 0:
        parent, _, base = name.rpartition("/")
        tar.addfile(_info(f"{parent}/.wh.{base}" if parent else f".wh.{base}", None))
        return
    if stat.S_ISSOCK(mode) or name.rpartition("/")[2].startswith(".wh."):
        return  # a layer has no way to say these
    info = _info(name, found)
    if stat.S_ISREG(mode):
        key = (found.st_dev, found.st_ino)
        if found.st_nlink > 1 and key in links:
            info.type, info.linkname = tarfile.LNKTYPE, links[key]
            tar.addfile(info)
            return
        links[key] = name
        info.size = found.st_size
        info.pax_headers = _attributes(path)
        with path.open("rb") as file:
            tar.addfile(info, file)
        return
    if stat.S_ISDIR(mode):
        info.type = tarfile.DIRTYPE
        info.pax_headers = _attributes(path)
        tar.addfile(info)
        if _is_opaque(path):
            tar.addfile(_info(f"{name}/.wh..wh..opq", None))
        return
    if stat.S_ISLNK(mode):
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
    elif stat.S_ISFIFO(mode):
        info.type = tarfile.FIFOTYPE
    else:
        return  # device nodes: an image must not have them
    tar.addfile(info)


def _info(name: str, found: os.stat_result | None) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    if found is not None:
        info.mode = stat.S_IMODE(found.st_mode)
        info.uid, info.gid = found.st_uid, found.st_gid
        info.mtime = int(found.st_mtime)
    return info


def _attributes(path: Path) -> dict[str, str]:
    names = [name for name in os.listxattr(path, follow_symlinks=False) if not name.startswith("trusted.")]
    return {
        f"SCHILY.xattr.{name}": os.getxattr(path, name, follow_symlinks=False).decode("utf-8", "surrogateescape")
        for name in names
        if name.startswith("user.") or name == "security.capability"
    }


def _is_opaque(path: Path) -> bool:
    try:
        return os.getxattr(path, _OPAQUE) == b"y"
    except OSError:
        return False
