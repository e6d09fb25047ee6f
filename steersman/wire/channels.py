"""The numbered channels of exec, attach and port-forward over one WebSocket, and the status that ends a command.

Owns the subprotocols `[v4.|v5.][base64.]channel.k8s.io`: what a message means for a channel, and the bytes of the error
channel. Pure; used by `kubelet.streaming`. Source: k8s.io/apimachinery's remotecommand constants, KEP-4006.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from steersman.wire.spdyheaders import ProtocolError

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255

REMOTE_COMMAND = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
)
PORT_FORWARD = ("v4.channel.k8s.io", "v4.base64.channel.k8s.io")
TUNNEL = "SPDY/3.1+portforward.k8s.io"

_MAX_RESIZE = 4096  # bytes of an unfinished JSON value


@dataclass(frozen=True, slots=True)
class ChannelData:
    """Bytes for a channel."""

    channel: int
    data: bytes


@dataclass(frozen=True, slots=True)
class ChannelClosed:
    """The peer will send no more on a channel (v5 only)."""

    channel: int


@dataclass(frozen=True, slots=True)
class ChannelCodec:
    """One subprotocol; "" is the unversioned binary one."""

    protocol: str

    @property
    def text(self) -> bool:
        """Whether messages are text, the data in base64."""
        return "base64" in self.protocol

    def decode(self, message: bytes) -> ChannelData | ChannelClosed | None:
        """What a message means; None when it is empty. Raises ProtocolError."""
        if not message:
            return None
        channel, data = message[0], message[1:]
        if self.protocol.startswith("v5.") and channel == CLOSE:
            if len(data) != 1:
                raise ProtocolError("a close signal names one channel")
            return ChannelClosed(data[0])
        if not self.text:
            return ChannelData(channel, data)
        try:
            return ChannelData((channel - 48) % 256, base64.b64decode(data, validate=True))
        except binascii.Error as error:
            raise ProtocolError(f"a message is not base64: {error}") from error

    def encode(self, channel: int, data: bytes) -> bytes:
        """The message that carries `data` on `channel`."""
        return bytes([channel + 48]) + base64.b64encode(data) if self.text else bytes([channel]) + data

    def encode_close(self, channel: int) -> bytes:
        """The message that closes a channel, for a v5 client."""
        return bytes([CLOSE, channel])


def success() -> dict[str, Any]:
    """The Status of a command that ended with 0."""
    return {"metadata": {}, "status": "Success"}


def exit_status(code: int) -> dict[str, Any]:
    """The Status of a command that ended with `code`."""
    if not code:
        return success()
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def internal_error(text: str) -> dict[str, Any]:
    """The Status of a command that could not be run or seen through."""
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {text}",
        "reason": "InternalError",
        "details": {"causes": [{"message": text}]},
        "code": 500,
    }


def encode_status(status: dict[str, Any], protocol: str) -> bytes:
    """What the error channel carries: JSON from v4 on, before that the bare message of a failure."""
    if protocol.startswith(("v4.", "v5.")):
        return json.dumps(status, separators=(",", ":")).encode()
    return b"" if status["status"] == "Success" else str(status["message"]).encode()


@dataclass(slots=True)
class ResizeDecoder:
    """Terminal sizes out of a stream of JSON values such as {"Width":80,"Height":24}."""

    _pending: str = ""
    _decoder: json.JSONDecoder = field(default_factory=json.JSONDecoder)

    def feed(self, data: bytes) -> Sequence[tuple[int, int]]:
        """The sizes (width, height) that are whole now. Raises ProtocolError for anything else."""
        self._pending = (self._pending + data.decode("latin-1")).lstrip()
        sizes = []
        while self._pending:
            try:
                value, end = self._decoder.raw_decode(self._pending)
            except (ValueError, RecursionError):
                if len(self._pending) > _MAX_RESIZE or not self._pending.startswith("{"):
                    raise ProtocolError("a terminal size is not JSON") from None
                break
            self._pending = self._pending[end:].lstrip()
            sizes.append(_size(value))
        return sizes


def _size(value: Any) -> tuple[int, int]:
    if not isinstance(value, dict):
        raise ProtocolError("a terminal size is not an object")
    fields = {str(name).lower(): number for name, number in value.items()}
    width, height = fields.get("width", 0), fields.get("height", 0)
    if any(not isinstance(n, int) or isinstance(n, bool) or not 0 <= n < 65536 for n in (width, height)):
        raise ProtocolError("a terminal size is out of range")
    return width, height
