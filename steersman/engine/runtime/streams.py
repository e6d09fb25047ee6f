"""Reading and writing file descriptors of pipes and terminals on the running loop, without buffers of our own.

Owns `Reader` and `Writer`, each the owner of one non-blocking descriptor. A slow consumer slows the producer, because
nothing is read before it is asked for.
"""

from __future__ import annotations

import asyncio
import errno
import os

_CHUNK = 65536
_HIGH_WATER = 1 << 18


class Reader:
    """What comes out of a descriptor. After `end` what is left is read and then it is over, even if a stray process
    still holds the other end open."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None

    async def read(self) -> bytes:
        """Some bytes; empty at the end."""
        while self._fd >= 0:
            try:
                return os.read(self._fd, _CHUNK)
            except BlockingIOError:
                if self._ended:
                    return b""
                await self._readable()
            except OSError as error:
                if error.errno == errno.EIO:  # a terminal that nobody has open any more
                    return b""
                raise
        return b""

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = waiter = loop.create_future()
        loop.add_reader(self._fd, self._wake)
        try:
            await waiter
        finally:
            self._waiter = None
            if self._fd >= 0:
                loop.remove_reader(self._fd)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self) -> None:
        """The process that matters is gone: read what is there, then end."""
        self._ended = True
        self._wake()

    def close(self) -> None:
        """Close the descriptor; a waiting `read` returns empty bytes."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
        self._wake()


class Writer:
    """What goes into a descriptor. Data for a reader that is gone is dropped, as a shell's pipe would."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._pending = bytearray()
        self._finish = False
        self._room = asyncio.Event()
        self._room.set()

    def write(self, data: bytes) -> None:
        """Send without waiting. Raises ConnectionError when the reader is far behind and nobody drained."""
        if self._fd < 0 or self._finish:
            return
        if len(self._pending) > 64 * _HIGH_WATER:
            raise ConnectionError("standard input is not read")
        was_empty = not self._pending
        self._pending += data
        if was_empty:
            self._flush()

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._pending:
                del self._pending[: os.write(self._fd, self._pending)]
        except BlockingIOError:
            loop.add_writer(self._fd, self._flush)
            if len(self._pending) > _HIGH_WATER:
                self._room.clear()
            else:
                self._room.set()
            return
        except OSError:
            self.close()
            return
        loop.remove_writer(self._fd)
        self._room.set()
        if self._finish:
            self.close()

    async def drain(self) -> None:
        """Wait until what was written is nearly taken."""
        await self._room.wait()

    def finish(self) -> None:
        """Close once all is written."""
        self._finish = True
        if not self._pending:
            self.close()

    def close(self) -> None:
        """Close now; what is pending is dropped."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_writer(self._fd)
            os.close(self._fd)
            self._fd = -1
        self._pending.clear()
        self._room.set()
