"""One layer's archive to one directory, as a lower directory of overlayfs, whatever the archive tries.

Owns decompression, the digest of the uncompressed bytes (diff id), whiteouts and the policy for hostile members. Works
only relative to directory file descriptors, never follows a link that leads out of the layer, and leaves nothing when
it fails. Runs in a worker thread. Source: OCI image layer specification; overlayfs's documentation for whiteouts.

Policy: names with `..` are refused, a leading `/` means the layer's root, a later member replaces an earlier one (as
Docker does). Device nodes that every container gets anyway (null, zero, tty, ...) are left out, others are refused.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib
import os
import shutil
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from steersman.engine.images.tar import BadArchive, Entry, Reader

GZIP_MAGIC, ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_PIECE = 1 << 18
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_OPAQUE_XATTR = "trusted.overlay.opaque"
_MAX_LINKS = 40
_MAX_OPEN = 128  # directories kept open
_MAX_UNPACKED = 256 << 30  # bytes in one layer; more is a decompression bomb
_HARMLESS = {(1, minor) for minor in (3, 5, 7, 8, 9)} | {(5, minor) for minor in (0, 1, 2)}
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def decompressed(file: BinaryIO) -> Iterator[bytes]:
    """The bytes inside a gzip, zstd, xz, bzip2 or plain file, told by its first bytes. Raises BadArchive."""
    magic = file.read(6)
    file.seek(0)
    if magic.startswith(GZIP_MAGIC):
        yield from _gunzip(file)
    elif magic.startswith((b"BZh", b"\xfd7zXZ\0")):
        yield from _by_library(file, "bz2" if magic.startswith(b"BZh") else "lzma")
    elif magic.startswith(ZSTD_MAGIC):
        import zstandard

        try:
            for piece in zstandard.ZstdDecompressor(max_window_size=1 << 27).read_to_iter(file, _PIECE, _PIECE):
                yield piece
        except zstandard.ZstdError as error:
            raise BadArchive(f"zstd: {error}") from error
    else:
        while piece := file.read(_PIECE):
            yield piece


def _by_library(file: BinaryIO, name: str) -> Iterator[bytes]:
    module = importlib.import_module(name)
    try:
        with module.open(file) as plain:
            while piece := plain.read(_PIECE):
                yield piece
    except Exception as error:  # lzma.LZMAError is of no kind that could be named without the import
        raise BadArchive(f"{name}: {error}") from error


def _gunzip(file: BinaryIO) -> Iterator[bytes]:
    inflate = zlib.decompressobj(31)
    try:
        while data := file.read(_PIECE):
            while data:
                if inflate.eof:
                    if not data.strip(b"\0"):
                        break
                    inflate = zlib.decompressobj(31)
                yield inflate.decompress(data, _PIECE * 4)
                data = inflate.unconsumed_tail or inflate.unused_data
    except zlib.error as error:
        raise BadArchive(f"gzip: {error}") from error
    if not inflate.eof:
        raise BadArchive("unexpected EOF")


def unpack(blob: Path, target: Path, diff_id: str) -> int:
    """Unpack `blob` to the new directory `target`; returns the bytes of its files.

    Raises BadArchive (also when the content's digest is not `diff_id`) or OSError, and then `target` is not there.
    """
    digest = hashlib.sha256()
    total = 0

    def hashed(pieces: Iterator[bytes]) -> Iterator[bytes]:
        nonlocal total
        for piece in pieces:
            digest.update(piece)
            total += len(piece)
            if total > _MAX_UNPACKED:
                raise BadArchive(f"layer is larger than {_MAX_UNPACKED} bytes")
            yield piece

    target.mkdir(mode=0o755)
    try:
        with blob.open("rb", buffering=0) as file:
            reader = Reader(hashed(decompressed(file)))
            with _Tree(target) as tree:
                for entry in reader:
                    tree.add(entry, reader)
                reader.stream.drain()
                tree.finish()
        found = f"sha256:{digest.hexdigest()}"
        if found != diff_id:
            raise BadArchive(f"wrong diff id calculated on extraction {found!r}, expected {diff_id!r}")
    except BaseException:
        discard(target)
        raise
    return tree.bytes


def extract(archive: Path, target: Path) -> None:
    """Unpack an archive that is no layer into an existing directory: no whiteouts, the rest as careful as `unpack`.

    Raises BadArchive or OSError; what was unpacked before stays.
    """
    with archive.open("rb", buffering=0) as file:
        reader = Reader(decompressed(file))
        with _Tree(target, whiteouts=False) as tree:
            for entry in reader:
                tree.add(entry, reader)
            tree.finish()


def discard(directory: Path) -> None:
    """Remove an unpacked layer, whatever modes its directories have."""
    shutil.rmtree(directory, ignore_errors=True)


class _Tree:
    """The directory being filled."""

    def __init__(self, root: Path, *, whiteouts: bool = True) -> None:
        self._whiteouts = whiteouts
        self._root = os.open(root, _DIRECTORY)
        self._open: dict[tuple[str, ...], int] = {}
        self._directories: dict[tuple[str, ...], Entry] = {}
        self._privileged = os.geteuid() == 0
        self.bytes = 0

    def __enter__(self) -> _Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        os.close(self._root)

    def _close(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def add(self, entry: Entry, reader: Reader) -> None:
        """Create what `entry` says. Raises BadArchive, OSError."""
        parts = _parts(entry.name)
        if not parts:
            if entry.kind != "5":
                raise BadArchive(f"invalid path {entry.name!r}")
            self._directories[()] = entry
            return
        parent, name = parts[:-1], parts[-1]
        try:
            at = self._directory(parent, create=True)
            if self._whiteouts and name.startswith(_WHITEOUT):
                self._whiteout(at, parent, name)
            elif entry.kind == "5":
                self._make_directory(at, parts, entry)
            else:
                self._clear(at, name, parts)
                self._make(at, name, entry, reader)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT, errno.EINVAL):
                raise BadArchive(f"invalid path {entry.name!r}: {error.strerror}") from error
            raise

    def _directory(self, parts: tuple[str, ...], *, create: bool = False) -> int:
        """A descriptor of a directory of the layer, kept until `_close`; missing ones are made if `create`."""
        if not parts:
            return self._root
        if (fd := self._open.get(parts)) is not None:
            return fd
        fd = self._walk(list(parts), create)
        if len(self._open) >= _MAX_OPEN:
            self._close()
        self._open[parts] = fd
        return fd

    def _walk(self, todo: list[str], create: bool) -> int:
        """Descend from the root, following links inside the layer only."""
        stack = [os.dup(self._root)]
        links = 0
        try:
            while todo:
                name = todo.pop(0)
                if name == "..":
                    if len(stack) == 1:
                        raise BadArchive("a symbolic link leads out of the layer")
                    os.close(stack.pop())
                    continue
                try:
                    stack.append(os.open(name, _DIRECTORY, dir_fd=stack[-1]))
                except FileNotFoundError:
                    if not create:
                        raise
                    os.mkdir(name, 0o755, dir_fd=stack[-1])
                    stack.append(os.open(name, _DIRECTORY, dir_fd=stack[-1]))
                except (NotADirectoryError, OSError) as error:
                    if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                        raise
                    target = _link(name, stack[-1])
                    if target is None:
                        raise
                    links += 1
                    if links > _MAX_LINKS:
                        raise BadArchive("too many levels of symbolic links") from error
                    if target.startswith("/"):
                        while len(stack) > 1:
                            os.close(stack.pop())
                    todo[:0] = [part for part in target.split("/") if part not in ("", ".")]
            return stack.pop()
        finally:
            for fd in stack:
                os.close(fd)

    def _clear(self, at: int, name: str, parts: tuple[str, ...]) -> bool:
        """Remove what an earlier member left at this name; True when that was a whiteout."""
        try:
            found = os.lstat(name, dir_fd=at)
        except FileNotFoundError:
            return False
        if stat.S_ISDIR(found.st_mode):
            self._close_below(parts)
            for known in [known for known in self._directories if known[: len(parts)] == parts]:
                del self._directories[known]
            shutil.rmtree(name, dir_fd=at)
            return False
        os.unlink(name, dir_fd=at)
        self._close_below(parts)
        return _is_whiteout(found)

    def _close_below(self, parts: tuple[str, ...]) -> None:
        """Directories reached through what is being replaced must be looked up anew; links may point anywhere."""
        keep: dict[tuple[str, ...], int] = {}
        for known, fd in self._open.items():
            if known == parts[:-1]:
                keep[known] = fd
            else:
                os.close(fd)
        self._open = keep

    def _make_directory(self, at: int, parts: tuple[str, ...], entry: Entry) -> None:
        name = parts[-1]
        self._directories[parts] = entry
        try:
            os.mkdir(name, 0o755, dir_fd=at)
        except FileExistsError:
            if stat.S_ISDIR(os.lstat(name, dir_fd=at).st_mode):
                return
            hides = self._clear(at, name, parts)
            os.mkdir(name, 0o755, dir_fd=at)
            self._directories[parts] = entry
            if hides:
                self._opaque(self._directory(parts))

    def _make(self, at: int, name: str, entry: Entry, reader: Reader) -> None:
        kind = entry.kind
        if kind == "0":
            self._file(at, name, entry, reader)
        elif kind == "1":
            self._hard_link(at, name, entry)
        elif kind == "2":
            os.symlink(entry.link, name, dir_fd=at)
            self._own(name, at, entry)
            os.utime(name, ns=_times(entry), dir_fd=at, follow_symlinks=False)
        elif kind == "6":
            os.mkfifo(name, 0o600, dir_fd=at)
            self._own(name, at, entry)
            os.chmod(name, entry.mode, dir_fd=at)
        elif kind in "34":
            if kind == "4" or (entry.major, entry.minor) not in _HARMLESS:
                what = "block" if kind == "4" else "character"
                device = f"{what} device {entry.major}:{entry.minor}"
                raise BadArchive(f"device node {entry.name!r} ({device}) is not allowed in an image layer")
        else:
            raise BadArchive(f"unhandled tar header type {entry.kind!r} of {entry.name!r}")

    def _file(self, at: int, name: str, entry: Entry, reader: Reader) -> None:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=at)
        try:
            for piece in reader.data(entry):
                while piece:
                    piece = piece[os.write(fd, piece) :]
            self._settle(fd, entry)
        finally:
            os.close(fd)
        self.bytes += entry.size

    def _hard_link(self, at: int, name: str, entry: Entry) -> None:
        parts = _parts(entry.link)
        if not parts:
            raise BadArchive(f"invalid hard link {entry.name!r} -> {entry.link!r}")
        at = os.dup(at)  # looking up the source may close what is kept open
        try:
            source = self._directory(parts[:-1])
            os.link(parts[-1], name, src_dir_fd=source, dst_dir_fd=at, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EPERM, errno.ELOOP):
                why = f"invalid hard link {entry.name!r} -> {entry.link!r}: {error.strerror}"
                raise BadArchive(why) from error
            raise
        finally:
            os.close(at)

    def _whiteout(self, at: int, parent: tuple[str, ...], name: str) -> None:
        if name == _OPAQUE:
            self._opaque(at)
            return
        hidden = name[len(_WHITEOUT) :]
        if hidden.startswith(_WHITEOUT):
            return  # aufs's own bookkeeping
        if hidden in ("", ".", ".."):
            raise BadArchive(f"invalid whiteout {name!r}")
        try:
            os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0), dir_fd=at)
        except FileExistsError:
            if stat.S_ISDIR(os.lstat(hidden, dir_fd=at).st_mode):
                self._opaque(self._directory((*parent, hidden)))

    def _opaque(self, fd: int) -> None:
        os.setxattr(fd, _OPAQUE_XATTR, b"y")

    def _own(self, name: str, at: int, entry: Entry) -> None:
        if self._privileged and (entry.uid or entry.gid):
            os.chown(name, entry.uid, entry.gid, dir_fd=at, follow_symlinks=False)

    def _settle(self, fd: int, entry: Entry) -> None:
        """Owner, mode, extended attributes and time, in the order that keeps set-id bits and capabilities."""
        if self._privileged and (entry.uid or entry.gid):
            os.fchown(fd, entry.uid, entry.gid)
        os.fchmod(fd, entry.mode)
        for key, value in entry.xattrs.items():
            if key.startswith("trusted."):
                raise BadArchive(f"extended attribute {key!r} of {entry.name!r} is not allowed in an image layer")
            with contextlib.suppress(OSError):  # what this file system cannot keep is left out, as Docker does
                os.setxattr(fd, key, value)
        os.utime(fd, ns=_times(entry))

    def finish(self) -> None:
        """Directories get their modes and times last, when nothing more is written into them."""
        for parts, entry in sorted(self._directories.items(), key=lambda item: -len(item[0])):
            self._settle(self._directory(parts), entry)


def _parts(name: str) -> tuple[str, ...]:
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise BadArchive(f"invalid path {name!r}: it leads out of the layer")
    return parts


def _link(name: str, at: int) -> str | None:
    try:
        return os.readlink(name, dir_fd=at)
    except OSError:
        return None


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def _times(entry: Entry) -> tuple[int, int]:
    ns = int(min(max(entry.mtime, -(1 << 33)), 1 << 33) * 1e9)
    return ns, ns
