"""Tells when something in a directory changes, without looking again and again. Linux' inotify(7).

Owns one descriptor per watch. Used by `logs`.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from pathlib import Path

_MODIFY, _MOVED_TO, _CREATE, _ONLYDIR = 0x2, 0x80, 0x100, 0x01000000


class DirectoryWatch:
    """Wakes `wait` after files in a directory were written, made or renamed. Raises OSError when it cannot watch."""

    def __init__(self, directory: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        if libc.inotify_add_watch(self._fd, os.fsencode(directory), _MODIFY | _MOVED_TO | _CREATE | _ONLYDIR) < 0:
            error = ctypes.get_errno()
            os.close(self._fd)
            raise OSError(error, os.strerror(error), str(directory))
        self._changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._fd, self._readable)

    def _readable(self) -> None:
        try:
            os.read(self._fd, 65536)
        except BlockingIOError:
            return
        self._changed.set()

    async def wait(self, seconds: float) -> None:
        """Return after the next change since the last call, or after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()

    def close(self) -> None:
        """Watch no more."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
