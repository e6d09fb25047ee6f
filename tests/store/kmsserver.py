"""A real KMS v2 plugin over grpc's own server: it seals with AES-GCM, and may be told to be slow, to lie or to die."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

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
    """A clock that tests move; whoever sleeps wakes when his time has come."""

    def __init__(self) -> None:
        self.time = 1_767_225_600.0

    def now(self) -> float:
        """Unix time in seconds."""
        return self.time

    def monotonic(self) -> float:
        """The same."""
        return self.time

    async def sleep(self, seconds: float) -> None:
        """A real turn of the loop, often enough."""
        import asyncio

        until = self.time + seconds
        while True:
            await asyncio.sleep(0.001)  # noqa: TID251
            if self.time >= until or seconds < 1:
                return
