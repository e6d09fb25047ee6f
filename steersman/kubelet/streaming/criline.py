"""Lines of a container's log file, and which of them a reader gets.

Pure. Owns the CRI log format (`TIME STREAM TAGS TEXT`) and the options of PodLogOptions that choose lines. Used by
`logs`. Source: k8s.io/cri-client, pkg/logs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

_TIME = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)\Z")


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What a reader wants. `since` is in Unix nanoseconds; None means no limit of that kind."""

    tail_lines: int | None = None
    limit_bytes: int | None = None
    since: int | None = None
    timestamps: bool = False
    follow: bool = False
    stream: str = "All"  # or Stdout, Stderr


class LogLines:
    """Chooses and forms lines. `done` once nothing more may be given."""

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        self._left = options.limit_bytes
        self._only = b"" if options.stream == "All" else options.stream.lower().encode()
        self._counted = options.tail_lines if not options.follow else None
        self._line_begins = True
        self.done = self._counted == 0

    def take(self, lines: Iterable[bytes]) -> bytes:
        """What a reader gets for these lines of the file. Lines in another format are left out."""
        out: list[bytes] = []
        for line in lines:
            if self.done:
                break
            self._one(line, out)
        return b"".join(out)

    def _one(self, line: bytes, out: list[bytes]) -> None:
        parts = line.split(b" ", 3)
        if len(parts) < 4 or parts[1] not in (b"stdout", b"stderr"):
            return
        stamp, stream, tags, text = parts
        if self._options.timestamps or self._options.since is not None:
            parsed = _parse(stamp)
            if parsed is None:
                return
        else:
            parsed = None
        if tags[:1] == b"P" and tags.split(b":", 1)[0] == b"P" and text.endswith(b"\n"):
            text = text[:-1]
        if self._wanted(stream, parsed):
            if self._options.timestamps and self._line_begins and parsed is not None:
                out.append(self._cut(parsed[0] + b" " + text))
            else:
                out.append(self._cut(text))
        self._line_begins = not text or text.endswith(b"\n")
        if self._counted is not None:
            self._counted -= 1
            self.done = self.done or not self._counted

    def _wanted(self, stream: bytes, parsed: tuple[bytes, int] | None) -> bool:
        if self._only and stream != self._only:
            return False
        since = self._options.since
        return since is None or parsed is None or parsed[1] >= since

    def _cut(self, text: bytes) -> bytes:
        if self._left is None:
            return text
        text = text[: self._left]
        self._left -= len(text)
        self.done = not self._left
        return text


def _parse(stamp: bytes) -> tuple[bytes, int] | None:
    """A time as it is printed (nine decimals, Z for UTC) and in Unix nanoseconds; None when it is none."""
    match = _TIME.match(stamp)
    if match is None:
        return None
    second, fraction, zone = match[1], (match[2] or b"").ljust(9, b"0"), match[3]
    if zone == b"+00:00":
        zone = b"Z"
    try:
        return b"%b.%b%b" % (second, fraction, zone), _seconds(second + zone) * 1_000_000_000 + int(fraction)
    except ValueError:
        return None


@lru_cache(64)
def _seconds(stamp: bytes) -> int:
    return int(datetime.fromisoformat(stamp.decode()).timestamp())


def nanoseconds(stamp: str) -> int:
    """An RFC 3339 time as Unix nanoseconds. Raises ValueError."""
    parsed = _parse(stamp.encode())
    if parsed is None:
        raise ValueError(f"not a time: {stamp!r}")
    return parsed[1]
