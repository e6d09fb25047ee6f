"""Tells when something in a directory changes, without looking again and again. Linux' inotify(7).

Owns one descriptor per watch. Called by whoever follows files: logs of containers, files of the API server.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)

_MODIFY, _MOVED_TO, _CREATE, _ONLYDIR = 0x2, 0x80, 0x100, 0x01000000


class DirectoryWatch:
    """Wakes `wait` after files in a directory were written, made or renamed.

    A user may have few watches, 128 on many machines: without one, `wait` lasts as long as it may.
    """

    def __init__(self, directory: Path) -> None:
        self._changed = asyncio.Event()
        self._fd = -1
        try:
            self._fd = _watch(directory)
        except OSError as error:
            log.info("looking at %s from time to time: %s", directory, error)
        else:
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


def _watch(directory: Path) -> int:
    """A descriptor that is readable after a change. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "inotify_init1")
    if libc.inotify_add_watch(fd, os.fsencode(directory), _MODIFY | _MOVED_TO | _CREATE | _ONLYDIR) < 0:
        error = ctypes.get_errno()
        os.close(fd)
        raise OSError(error, os.strerror(error), str(directory))
    return fd
