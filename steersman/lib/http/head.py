"""Heads of messages as bytes: status lines, headers, and what a request's head may not contain. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus

_LENGTH = re.compile(r"[0-9]{1,18}")
_REASONS = {status.value: status.phrase for status in HTTPStatus}
_STATUS_LINES = {code: f"HTTP/1.1 {code} {phrase}\r\n" for code, phrase in _REASONS.items()}


class BadRequest(Exception):
    """The request cannot be answered in peace: `status`, and the connection closes."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def check_framing(headers: Sequence[tuple[str, str]], version: str) -> int | None:
    """How the body is delimited: its length, or None when chunked. Raises BadRequest for anything two readers could
    understand in two ways (RFC 9112 section 6.3)."""
    if version not in ("1.0", "1.1"):
        raise BadRequest(400, "unsupported HTTP version")
    lengths = [value for name, value in headers if name == "content-length"]
    codings = [value for name, value in headers if name == "transfer-encoding"]
    hosts = sum(name == "host" for name, _ in headers)
    if hosts > 1 or (not hosts and version == "1.1"):
        raise BadRequest(400, "exactly one Host header is required")
    if codings:
        if lengths or version != "1.1" or len(codings) > 1 or codings[0].strip().lower() != "chunked":
            raise BadRequest(400, "ambiguous or unsupported Transfer-Encoding")
        return None
    if not lengths:
        return 0
    if len(set(lengths)) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise BadRequest(400, "invalid Content-Length")
    return int(lengths[0])


def status_line(status: int) -> str:
    """`HTTP/1.1 200 OK` and its line end."""
    return _STATUS_LINES.get(status) or f"HTTP/1.1 {status} Unknown\r\n"


def head(status: int, headers: Sequence[tuple[str, str]], extra: str) -> bytes:
    """A whole head; `extra` is ready-made header lines. Raises ValueError for header injection."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers) or "\0" in lines:
        raise ValueError("a header contains a line break")
    return (status_line(status) + lines + extra + "\r\n").encode("latin-1")
