"""The few mounts that the kubelet makes itself: tmpfs for memory volumes, bind mounts for sub-paths.

Owns the calls into libc and the reading of the mount table. Called by the volume types and by clean-up. Every call
blocks for microseconds only.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

_MS_NOSUID, _MS_NODEV, _MS_BIND = 2, 4, 4096
_MNT_DETACH = 2


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _mount(source: str, target: str, kind: str, flags: int, options: str) -> None:
    result = _libc().mount(source.encode(), os.fsencode(target), kind.encode(), flags, options.encode())
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot mount {target}: {os.strerror(code)}")


def tmpfs(target: Path, *, size: int, mode: int) -> None:
    """A memory file system at `target` of at most `size` bytes (0: no limit). Raises OSError."""
    options = f"mode={mode:o}" + (f",size={size}" if size else "")
    _mount("tmpfs", str(target), "tmpfs", _MS_NOSUID | _MS_NODEV, options)


def bind(descriptor: int, target: Path) -> None:
    """What the open file `descriptor` names, seen at `target` too. Raises OSError."""
    _mount(f"/proc/self/fd/{descriptor}", str(target), "", _MS_BIND, "")


def unmount(target: str) -> None:
    """Take a mount away, at once for new openers; nothing happens when there is none."""
    _libc().umount2(os.fsencode(target), _MNT_DETACH)


def is_mount(path: Path) -> bool:
    """Whether a file system is mounted exactly here."""
    return str(path) in mounted_under(str(path))


def mounted_under(directory: str) -> list[str]:
    """Mount points at or below `directory`, deepest first."""
    prefix = directory.rstrip("/") + "/"
    found = []
    with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            point = _unescaped(line.split(" ", 5)[4])
            if point == directory or point.startswith(prefix):
                found.append(point)
    return sorted(found, key=len, reverse=True)


def _unescaped(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text
