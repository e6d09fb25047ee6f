"""Tells when a process that is not our child has ended, and tells subscribers what happened to containers.

Owns the pidfds of monitors and the event subscriptions of one runtime. No polling: a pidfd becomes readable when its
process ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

from steersman.engine.interface import ContainerEvent
from steersman.engine.runtime import kernel
from steersman.engine.runtime.records import Process


class Watches:
    """The monitors that are waited for."""

    def __init__(self) -> None:
        self._fds: dict[str, int] = {}

    def add(self, name: str, process: Process, ended: Callable[[str], None]) -> bool:
        """Call `ended(name)` once when the process ends; returns False when it already has. Running loop only."""
        try:
            fd = os.pidfd_open(process.pid)
        except OSError:
            return False
        if kernel.process_start(process.pid) != process.start:
            os.close(fd)
            return False

        def readable() -> None:
            self.drop(name)
            with contextlib.suppress(OSError):
                os.waitpid(process.pid, os.WNOHANG)  # ours only where this process adopts orphans
            ended(name)

        self._fds[name] = fd
        asyncio.get_running_loop().add_reader(fd, readable)
        return True

    def drop(self, name: str) -> None:
        """Stop waiting for `name`."""
        if (fd := self._fds.pop(name, None)) is not None:
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)

    def close(self) -> None:
        """Stop waiting for anything."""
        for name in list(self._fds):
            self.drop(name)


class Subscription:
    """One caller's events, in order; ends when the runtime is closed."""

    def __init__(self, feed: Events) -> None:
        self._feed = feed
        self.queue: asyncio.Queue[ContainerEvent | None] = asyncio.Queue()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> ContainerEvent:
        event = await self.queue.get()
        if event is None:
            raise StopAsyncIteration
        return event

    async def aclose(self) -> None:
        """Want no more events."""
        self._feed.drop(self)


class Events:
    """Everything that happens, to everybody who asked."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    def subscribe(self) -> Subscription:
        """Events from now on."""
        subscription = Subscription(self)
        self._subscriptions.add(subscription)
        return subscription

    def drop(self, subscription: Subscription) -> None:
        """Send nothing more to a subscription."""
        self._subscriptions.discard(subscription)

    def send(self, event: ContainerEvent) -> None:
        """Tell everybody."""
        for subscription in self._subscriptions:
            subscription.queue.put_nowait(event)

    def close(self) -> None:
        """End every subscription."""
        for subscription in self._subscriptions:
            subscription.queue.put_nowait(None)
        self._subscriptions.clear()
