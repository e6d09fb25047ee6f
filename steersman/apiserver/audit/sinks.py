"""Where audit events go: a file that is rotated, or a webhook in batches.

Owns both back-ends. An event that cannot be kept is dropped and said so in the log: auditing never refuses a request.
Source: apiserver's plugin/pkg/audit; the file's rotation is lumberjack's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections import deque
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from steersman.api.resource import Object
from steersman.apiserver.webhookclient import Webhook, WebhookFailed
from steersman.lib.clock import Clock

log = logging.getLogger(__name__)

_MOST_WAITING = 10_000


class LogFile:
    """One line of JSON an event. Sizes are bytes, ages seconds; 0 means without end. `-` is standard output."""

    def __init__(self, path: str, clock: Clock, *, size: int = 0, backups: int = 0, age: float = 0.0) -> None:
        """Raises OSError when the file cannot be opened."""
        self._path = Path(path)
        self._clock = clock
        self._most, self._backups, self._age = size, backups, age
        self._file = sys.stdout.fileno() if path == "-" else self._open()
        self._size = 0 if path == "-" else os.fstat(self._file).st_size
        self._plain = path == "-"

    def _open(self) -> int:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __call__(self, event: Object) -> None:
        """Write one event."""
        line = msgspec.json.encode(event) + b"\n"
        try:
            if self._most and self._size and not self._plain and self._size + len(line) > self._most:
                self._rotate()
            self._size += os.write(self._file, line)
        except OSError as error:
            log.error("cannot write to the audit log %s: %s", self._path, error)

    def _rotate(self) -> None:
        stamp = datetime.fromtimestamp(self._clock.now(), UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")[:-3]
        self._path.rename(self._path.with_name(f"{self._path.stem}-{stamp}{self._path.suffix}"))
        os.close(self._file)
        self._file, self._size = self._open(), 0
        kept = sorted(self._path.parent.glob(f"{self._path.stem}-*{self._path.suffix}"), reverse=True)
        for at, old in enumerate(kept):
            late = self._age and old.stat().st_mtime < self._clock.now() - self._age
            if late or (self._backups and at >= self._backups):
                old.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file."""
        if not self._plain:
            os.close(self._file)


class WebhookSink:
    """Sends EventLists. `run` must run beside it; times are seconds."""

    def __init__(self, webhook: Webhook, clock: Clock, *, batch: int = 400, wait: float = 30.0, most: int = 0) -> None:
        """`batch` events at a time, and with `most` not more bytes of events than that."""
        self.most = most
        self._webhook = webhook
        self._clock = clock
        self._batch, self._wait = batch, wait
        self._waiting: deque[Object] = deque()
        self._some, self._full = asyncio.Event(), asyncio.Event()

    def __call__(self, event: Object) -> None:
        """Put one event in the queue; when it is full the event is dropped."""
        if len(self._waiting) >= _MOST_WAITING:
            log.error("audit webhook: the queue is full, an event is dropped")
            return
        self._waiting.append(event)
        self._some.set()
        if len(self._waiting) >= self._batch:
            self._full.set()

    async def run(self) -> None:
        """Send batches: when one is full, or some time after the first event of it. Ends by cancellation."""
        while True:
            await self._some.wait()
            if not self._full.is_set():
                await self._until_full()
            await self.flush()

    async def _until_full(self) -> None:
        full = asyncio.ensure_future(self._full.wait())
        late = asyncio.ensure_future(self._clock.sleep(self._wait))
        try:
            await asyncio.wait((full, late), return_when=asyncio.FIRST_COMPLETED)
        finally:
            full.cancel()
            late.cancel()

    async def flush(self) -> None:
        """Send what is waiting, a batch at a time."""
        self._some.clear()
        self._full.clear()
        while self._waiting:
            events = self._next()
            body = {"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": events}
            try:
                await self._webhook.post(body)
            except WebhookFailed as error:
                log.error("audit webhook: %d events are lost: %s", len(events), error)

    def _next(self) -> list[Object]:
        """The next batch: never empty, even where one event is larger than a batch may be."""
        if not self.most:
            return [self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))]
        events: list[Object] = []
        size = 0
        while self._waiting and len(events) < self._batch:
            size += len(msgspec.json.encode(self._waiting[0]))
            if events and size > self.most:
                break
            events.append(self._waiting.popleft())
        return events
