"""Reading a container's log file, following it through rotation until the container ends.

Owns the file's side of `kubectl logs`; `criline` chooses the lines. Called by `server`. Source: k8s.io/cri-client,
pkg/logs. Unlike the original, a follower reads a rotated file to its end before it goes on with the new one.
"""

from __future__ import annotations

import io
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from steersman.kubelet.streaming.criline import LogLines, LogOptions
from steersman.lib.inotify import DirectoryWatch

_BLOCK = 64 * 1024
_LOOK = 1.0  # seconds between looks at the container while nothing is written
_MAX_LINE = 1024 * 1024  # bytes; an engine cuts lines long before

Running = Callable[[], bool]
"""Whether the container may still write."""


def open_log(path: str) -> io.FileIO:
    """Open a log. Raises OSError."""
    return io.FileIO(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "r")


def tail_start(file: io.FileIO, lines: int) -> int:
    """Where the last `lines` lines begin; a last line without its end is not counted."""
    position = file.seek(0, io.SEEK_END)
    missing = lines + 1
    while position > 0:
        start = max(position - _BLOCK, 0)
        file.seek(start)
        block = file.read(position - start) or b""
        found = block.count(b"\n")
        if found >= missing:
            index = len(block)
            for _ in range(missing):
                index = block.rindex(b"\n", 0, index)
            return start + index + 1
        missing -= found
        position = start
    return 0


async def read(file: io.FileIO, path: str, options: LogOptions, running: Running) -> AsyncIterator[bytes]:
    """The wanted part of a log, in pieces; closes the file. With `follow`, until the container has ended."""
    reader = _Reader(file)
    lines = LogLines(options)
    watch: DirectoryWatch | None = None
    try:
        file.seek(0 if options.tail_lines is None else tail_start(file, options.tail_lines))
        last_look = False
        while not lines.done:
            if found := reader.lines():
                if text := lines.take(found):
                    yield text
                continue
            if not options.follow:
                yield lines.take([reader.rest()])
                return
            if reader.switch(path):
                continue
            if last_look:
                return
            if not running():
                last_look = True  # what it wrote before it ended may have come since the last read
            elif watch is None:
                watch = DirectoryWatch(Path(path).parent)  # and read again: something may have come meanwhile
            else:
                await watch.wait(_LOOK)
    finally:
        reader.close()
        if watch is not None:
            watch.close()


class _Reader:
    """Whole lines of a file that grows."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._pending = b""

    def lines(self) -> list[bytes]:
        """The next whole lines, with their ends; empty when there are none yet."""
        while block := self._file.read(_BLOCK):
            whole, end, rest = (self._pending + block).rpartition(b"\n")
            self._pending = rest
            if end:
                return _split(whole + end)
            if len(rest) > _MAX_LINE:
                self._pending = b""
        return []

    def rest(self) -> bytes:
        """The last line, whose end is missing."""
        rest, self._pending = self._pending, b""
        return rest

    def switch(self, path: str) -> bool:
        """Go on with a new file at the same path, if there is one."""
        try:
            there = os.stat(path)
        except OSError:
            return False
        here = os.fstat(self._file.fileno())
        if (there.st_ino, there.st_dev) == (here.st_ino, here.st_dev):
            if here.st_size < self._file.tell():  # cut short in place
                self._file.seek(0)
                self._pending = b""
                return True
            return False
        try:
            new = open_log(path)
        except OSError:
            return False
        self._file.close()
        self._file, self._pending = new, b""
        return True

    def close(self) -> None:
        """Close the file that is open now."""
        self._file.close()


def _split(data: bytes) -> list[bytes]:
    """As splitlines, but only at line feeds: a carriage return belongs to the text."""
    return [line + b"\n" for line in data[:-1].split(b"\n")]
