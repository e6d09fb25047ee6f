"""The plugin that holds the keys: v2.KeyManagementService over gRPC on a Unix socket.

Owns its connection, its three calls and their deadlines. Called by `kms.py`. It never looks at what it carries. A
connection that is lost is made anew by the next call, which waits for a plugin that is not there yet, up to its
deadline. Source: k8s.io/kms apis/v2/api.proto; grpc's words for errors.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from steersman.lib.clock import Clock
from steersman.lib.grpc import wire
from steersman.lib.grpc.channel import Channel, GrpcError
from steersman.store.kmsmetrics import KmsMetrics

T = TypeVar("T")

_SERVICE = "/v2.KeyManagementService/"
_AGAIN = 0.05  # seconds between attempts to connect
_MOST = 4 << 20  # bytes of an answer, as grpc has it
_CODES = (
    "OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists", "PermissionDenied",
    "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented", "Internal", "Unavailable",
    "DataLoss", "Unauthenticated",
)  # fmt: skip


class PluginError(Exception):
    """A call failed; the text is what a client of grpc-go would say."""


@dataclass(frozen=True)
class Status:
    """What the plugin says of itself."""

    version: str
    healthz: str
    key_id: str


def socket_path(endpoint: str) -> str:
    """The path of `unix:///path`; of `unix:///@name` the abstract name, which begins with a zero byte."""
    path = urlsplit(endpoint).path
    return f"\0{path[2:]}" if path.startswith("/@") else path


class Plugin:
    """One plugin."""

    def __init__(
        self, name: str, endpoint: str, timeout: float, clock: Clock, metrics: KmsMetrics | None = None
    ) -> None:
        """`timeout` in seconds is each call's."""
        self.metrics = metrics or KmsMetrics()
        self.name = name
        self.timeout = timeout
        self._path = socket_path(endpoint)
        self._clock = clock
        self._channel: Channel | None = None
        self._connecting = asyncio.Lock()

    async def status(self) -> Status:
        """Version, health, and the id of the key that it seals with. Raises PluginError."""
        return await self._call("Status", b"", _status)

    async def encrypt(self, plain: bytes, call: str) -> tuple[bytes, str, dict[str, bytes]]:
        """The sealed bytes, the key's id and annotations. Raises PluginError."""
        return await self._call("Encrypt", wire.data(1, plain) + wire.data(2, call.encode()), _encrypted)

    async def decrypt(self, sealed: bytes, key_id: str, annotations: Mapping[str, bytes]) -> bytes:
        """What was sealed. Raises PluginError."""
        request = wire.data(1, sealed) + wire.data(2, str(uuid.uuid4()).encode()) + wire.data(3, key_id.encode())
        return await self._call("Decrypt", request + annotation_fields(4, annotations), _decrypted)

    async def _call(self, method: str, request: bytes, read: Callable[[bytes], T]) -> T:
        """The answer, read. Raises PluginError."""
        began, code = self._clock.monotonic(), "OK"
        try:
            async with asyncio.timeout(self.timeout):
                return read(await (await self._connected()).unary(_SERVICE + method, request))
        except TimeoutError:
            code, text = "DeadlineExceeded", "context deadline exceeded"
        except GrpcError as error:
            code, text = _CODES[error.code] if error.code < len(_CODES) else f"Code({error.code})", error.message
        except ValueError as error:
            code, text = "Internal", f"grpc: failed to unmarshal the received message: {error}"
        finally:
            self.metrics.called(self.name, _SERVICE + method, code, self._clock.monotonic() - began)
        raise PluginError(f"rpc error: code = {code} desc = {text}")

    async def _connected(self) -> Channel:
        async with self._connecting:
            while self._channel is None or self._channel.closed is not None:
                try:
                    self._channel = await Channel.connect(self._path, 0, most=_MOST)
                except OSError:
                    await self._clock.sleep(_AGAIN)
            return self._channel

    def close(self) -> None:
        """Drop the connection; a later call makes a new one."""
        if self._channel is not None:
            self._channel.close()


def _status(answer: bytes) -> Status:
    found = dict(wire.fields(answer))
    return Status(*(text_of(found.get(number, b"")) for number in (1, 2, 3)))


def _encrypted(answer: bytes) -> tuple[bytes, str, dict[str, bytes]]:
    fields = list(wire.fields(answer))
    found = dict(fields)
    notes = annotations_of(value for number, value in fields if number == 3)
    return bytes_of(found.get(1, b"")), text_of(found.get(2, b"")), notes


def _decrypted(answer: bytes) -> bytes:
    return bytes_of(dict(wire.fields(answer)).get(1, b""))


def bytes_of(value: wire.Value) -> bytes:
    """A field of bytes. Raises ValueError."""
    if not isinstance(value, bytes):
        raise ValueError("a field has the wrong type")
    return value


def text_of(value: wire.Value) -> str:
    """A string field. Raises ValueError."""
    return bytes_of(value).decode()


def annotation_fields(number: int, annotations: Mapping[str, bytes]) -> bytes:
    """A field of type map<string, bytes>."""
    pairs = (wire.data(1, name.encode()) + wire.data(2, value) for name, value in sorted(annotations.items()))
    return b"".join(wire.data(number, pair) for pair in pairs)


def annotations_of(fields: Iterable[wire.Value]) -> dict[str, bytes]:
    """What `annotation_fields` wrote. Raises ValueError."""
    found: dict[str, bytes] = {}
    for item in fields:
        pair = dict(wire.fields(bytes_of(item)))
        found[text_of(pair.get(1, b""))] = bytes_of(pair.get(2, b""))
    return found
