"""Streams that are sent the same: what is told to one is told to all, and costs each of them one write.

Owns `Crowd`: one for everybody who watches the same. A stream joins when it knows the past, and may be written to by
itself too, after a `flush`. Fed by the watch verb; when it is sent is up to `joining.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from steersman.lib.http.joining import Joining
from steersman.lib.http.streams import Outgoing


class Crowd:
    """Some streams, each with what to call when there will be nothing more to tell it."""

    def __init__(self, joining: Joining) -> None:
        self._joining = joining
        self._streams: dict[Outgoing, Callable[[], None]] = {}
        self._pieces: list[bytes] = []  # that wait to be joined with more

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, stream: Outgoing, end: Callable[[], None]) -> None:
        """Tell `stream`, too, from now on."""
        self.flush()
        self._streams[stream] = end

    def remove(self, stream: Outgoing) -> None:
        """No more for `stream`, which is sent what it was told."""
        self.flush()
        self._streams.pop(stream, None)

    def send_soon(self, data: bytes) -> None:
        """Send bytes to everybody, with what else comes within a moment.

        Who lags too far behind is dropped, of which `on_close` tells."""
        if not self._pieces:
            self._joining.soon(self.flush)
        self._pieces.append(data)

    def flush(self) -> None:
        """Send what waits to be joined with more."""
        if self._pieces:
            data = b"".join(self._pieces)
            self._pieces.clear()
            for stream in tuple(self._streams):  # who is dropped may leave at once
                try:
                    stream.send(data)
                except ConnectionError:
                    continue

    def end(self) -> None:
        """Call everybody's end."""
        for end in tuple(self._streams.values()):
            end()
