"""A real KMS v2 plugin over grpc's own server: it seals with AES-GCM, and may be told to be slow, to lie or to die."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from steersman.lib.clock import SystemClock
from steersman.lib.grpc import wire


class KmsServer:
    """A plugin on a Unix socket. Keys are made when first named and outlive its restarts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.endpoint = f"unix://{path}"
        self.key_id = "key-1"
        self.healthz, self.version = "ok", "v2"
        self.annotations: dict[str, bytes] = {"where.example.com": b"vault"}
        self.calls: list[tuple[str, bytes]] = []
        self.answers: dict[str, bytes] = {}  # what a method says instead of the truth
        self.failing: dict[str, grpc.StatusCode] = {}
        self.open = threading.Event()  # cleared: calls hang
        self.open.set()
        self._keys: dict[str, AESGCM] = {}
        self._server: Any = None

    def start(self) -> KmsServer:
        """Serve; also after `stop`."""
        self._server = grpc.server(ThreadPoolExecutor(4))
        methods = {"Status": self._status, "Encrypt": self._encrypt, "Decrypt": self._decrypt}
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(self._handler(name, method)) for name, method in methods.items()
        }
        generic = grpc.method_handlers_generic_handler("v2.KeyManagementService", handlers)
        self._server.add_generic_rpc_handlers((generic,))
        self._server.add_insecure_port(self.endpoint)
        self._server.start()
        return self

    def stop(self) -> None:
        """Be gone at once."""
        self.open.set()
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None
        self.path.unlink(missing_ok=True)

    def count(self, name: str) -> int:
        """How often a method was called."""
        return sum(name == each for each, _ in self.calls)

    def _handler(self, name: str, method: Callable[[bytes, Any], bytes]) -> Callable[[bytes, Any], bytes]:
        def handle(request: bytes, context: Any) -> bytes:
            self.calls.append((name, request))
            self.open.wait()
            if name in self.failing:
                context.abort(self.failing[name], "the vault is shut")
            return self.answers[name] if name in self.answers else method(request, context)

        return handle

    def _key(self, key_id: str) -> AESGCM:
        return self._keys.setdefault(key_id, AESGCM(AESGCM.generate_key(256)))

    def _status(self, request: bytes, context: Any) -> bytes:
        return b"".join(
            wire.data(at, text.encode()) for at, text in enumerate((self.version, self.healthz, self.key_id), 1)
        )

    def _encrypt(self, request: bytes, context: Any) -> bytes:
        plain = dict(wire.fields(request))[1]
        assert isinstance(plain, bytes)
        nonce = os.urandom(12)
        sealed = nonce + self._key(self.key_id).encrypt(nonce, plain, b"")
        notes = b"".join(
            wire.data(3, wire.data(1, name.encode()) + wire.data(2, value)) for name, value in self.annotations.items()
        )
        return wire.data(1, sealed) + wire.data(2, self.key_id.encode()) + notes

    def _decrypt(self, request: bytes, context: Any) -> bytes:
        found = dict(wire.fields(request))
        sealed, key_id, note = found[1], found[3], found.get(4)
        assert isinstance(sealed, bytes) and isinstance(key_id, bytes)
        if bool(note) != bool(self.annotations):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "annotations are missing")
        try:
            return wire.data(1, self._key(key_id.decode()).decrypt(sealed[:12], sealed[12:], b""))
        except InvalidTag:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not sealed here")
            raise AssertionError from None


class HandClock:
    """A clock that tests move; whoever sleeps wakes when his time has come.

    Waits of less than a second are real: they are for what really happens elsewhere, as a socket that will be there.
    """

    def __init__(self) -> None:
        self._time = 1_767_225_600.0
        self._asleep: dict[asyncio.Future[None], tuple[float, asyncio.Task[object] | None]] = {}
        self._changed = asyncio.Condition()

    @property
    def time(self) -> float:
        """Unix time in seconds. Set it, and those whose time has come wake."""
        return self._time

    @time.setter
    def time(self, now: float) -> None:
        self._time = now
        for future, (until, _) in self._asleep.items():
            if until <= now and not future.done():
                future.set_result(None)

    def now(self) -> float:
        """Unix time in seconds."""
        return self._time

    def monotonic(self) -> float:
        """The same."""
        return self._time

    async def sleep(self, seconds: float) -> None:
        """Wait for somebody to move the clock."""
        if seconds < 1:
            await SystemClock().sleep(seconds)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asleep[future] = self._time + seconds, asyncio.current_task()
        try:
            async with self._changed:
                self._changed.notify_all()
            await future
        finally:
            del self._asleep[future]

    async def asleep(self, count: int) -> None:
        """Wait until so many sleep."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._asleep) >= count)

    async def passes(self, seconds: float) -> None:
        """Time goes by; returns when all whom that woke have done what was due, and sleep again."""
        due = [task for until, task in self._asleep.values() if until <= self._time + seconds]
        self.time += seconds
        async with self._changed:
            await self._changed.wait_for(lambda: all(self._rests(task) for task in due))

    def _rests(self, task: asyncio.Task[object] | None) -> bool:
        return any(task is each and not future.done() for future, (_, each) in self._asleep.items())
