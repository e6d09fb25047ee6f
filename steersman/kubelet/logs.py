"""Container logs: the CRI format read, selected and followed.

Owns `LogOptions` and `stream`. Called by the kubelet's HTTPS server. It changes no log. Source: the CRI log format
(`<time> <stream> <P|F> <content>`); pkg/kubelet/kuberuntime/logs.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from steersman.lib.clock import Clock, parse_rfc3339
from steersman.lib.http.messages import Writer

_BLOCK = 64 * 1024
_LOOK = 0.1  # seconds between looks at a log that is followed
_BATCH = 256 * 1024


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What of a log is wanted. `since` in Unix seconds; None means no limit."""

    follow: bool = False
    timestamps: bool = False
    tail: int | None = None
    since: float | None = None
    limit: int | None = None
    streams: tuple[str, ...] = ("stdout", "stderr")


@dataclass(frozen=True, slots=True)
class Line:
    """One entry; `partial` when the line goes on in the next one."""

    time: bytes
    stream: str
    partial: bool
    content: bytes


def parse(raw: bytes) -> Line | None:
    """One line of a log file, without its line end; None for what is not one."""
    parts = raw.split(b" ", 3)
    if len(parts) < 3 or parts[1] not in (b"stdout", b"stderr"):
        return None
    content = parts[3] if len(parts) == 4 else b""
    return Line(parts[0], parts[1].decode(), parts[2].startswith(b"P"), content)


def find_tail(file: BinaryIO, lines: int) -> int:
    """Where the last `lines` whole lines begin. Partial entries count as part of their line."""
    end = file.seek(0, os.SEEK_END)
    if lines <= 0:
        return end
    position, found, buffer = end, 0, b""
    while position > 0:
        step = min(_BLOCK, position)
        position -= step
        file.seek(position)
        buffer = file.read(step) + buffer
        found = sum(1 for raw in buffer.split(b"\n") if (line := parse(raw)) is not None and not line.partial)
        if found > lines:
            break
    ends = [at for at, line in _lines_with_ends(buffer) if not line.partial]
    if len(ends) <= lines:
        return position if position else 0
    return position + ends[-lines - 1]


def _lines_with_ends(buffer: bytes) -> Iterator[tuple[int, Line]]:
    at = 0
    for raw in buffer.split(b"\n")[:-1]:
        at += len(raw) + 1
        line = parse(raw)
        if line is not None:
            yield at, line


class _Output:
    """Formats entries and keeps to the byte limit."""

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        self._left = options.limit
        self._midway = False
        self.full = False

    def add(self, line: Line) -> bytes:
        """An entry as the client sees it."""
        options = self._options
        if line.stream not in options.streams or (options.since is not None and _seconds(line.time) < options.since):
            return b""
        head = line.time + b" " if options.timestamps and not self._midway else b""
        self._midway = line.partial
        data = head + line.content + (b"" if line.partial else b"\n")
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
            self.full = self._left <= 0
        return data


def _seconds(stamp: bytes) -> float:
    text = stamp.decode("ascii", "replace")
    try:
        return parse_rfc3339(text)
    except ValueError:
        pass
    head, dot, rest = text.partition(".")  # nanoseconds: more digits than fromisoformat takes before Python 3.11
    zone = rest.lstrip("0123456789")
    try:
        return parse_rfc3339(f"{head}{dot}{rest[: len(rest) - len(zone)][:6]}{zone}")
    except ValueError:
        return 0.0


async def stream(path: Path, options: LogOptions, writer: Writer, running: Callable[[], bool], clock: Clock) -> None:
    """Write what is wanted of the log at `path`. With `follow`, go on until the container has ended and all is read,
    or the client is gone."""
    output = _Output(options)
    gone = asyncio.Event()
    writer.on_close(gone.set)
    file = path.open("rb")
    try:
        if options.tail is not None:
            file.seek(find_tail(file, options.tail))
        rest = b""
        while not output.full and not gone.is_set():
            ended = not running()  # asked before the read: what came before the end is read after it
            chunk = file.read(_BATCH)
            if chunk:
                *lines, rest = (rest + chunk).split(b"\n")
                data = b"".join(_formatted(lines, output))
                if data:
                    writer.write(data)
                    await writer.drain()
                continue
            if (rotated := _rotated(file, path)) is not None:
                file.close()
                file, rest = rotated, b""
                continue
            if not options.follow or ended:
                return
            await _pause(gone, clock)
    except ConnectionError:
        return
    finally:
        file.close()


def _formatted(lines: list[bytes], output: _Output) -> Iterator[bytes]:
    for raw in lines:
        if output.full:
            return
        line = parse(raw)
        if line is not None:
            yield output.add(line)


def _rotated(file: BinaryIO, path: Path) -> BinaryIO | None:
    """The new file at `path` when the one that is open was put aside."""
    try:
        if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
            return None
        return path.open("rb")
    except FileNotFoundError:
        return None


async def _pause(gone: asyncio.Event, clock: Clock) -> None:
    """A moment, or less when the client leaves."""
    leaving = asyncio.ensure_future(gone.wait())
    waiting = asyncio.ensure_future(clock.sleep(_LOOK))
    try:
        await asyncio.wait({leaving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        waiting.cancel()
