"""gzip for large answers to those who accept it, as kube-apiserver does.

Owns the choice of the compressor: ISA-L where it loads (smaller than zlib's fastest, and ten times as fast), else zlib.
Called by `app.py` for whole answers and by `verbs/longlist.py` for those that are sent in parts.
"""

from __future__ import annotations

import zlib
from typing import Protocol

from steersman.lib.http.messages import Answer, Headers, Request, Response

_LEAST = 128 * 1024  # bytes: kube-apiserver's defaultGzipThresholdBytes
_GZIP = 31  # zlib's window bits for a gzip header and the largest window
_VARIES = ("vary", "Accept-Encoding")
HEADERS: Headers = [("content-encoding", "gzip"), _VARIES]
_PLAIN = "/openapi/v3/"  # below it nothing is compressed, as in the original


class Compressor(Protocol):
    """What zlib's and ISA-L's objects have in common."""

    def compress(self, data: bytes, /) -> bytes:
        """What is ready of the data so far."""
        ...

    def flush(self) -> bytes:
        """The rest."""
        ...


def accepted(request: Request) -> bool:
    """Whether the client reads gzip."""
    return "gzip" in (request.header("accept-encoding") or "")


def compressor() -> Compressor:
    """For a body that is made in parts."""
    try:
        from isal import isal_zlib  # type: ignore[import-not-found]
    except ImportError:
        return zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    found: Compressor = isal_zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    return found


def compressed(request: Request, answer: Answer) -> Answer:
    """The answer, smaller where it is worth it."""
    if not isinstance(answer, Response) or answer.status != 200:
        return answer
    if any(name == "content-encoding" for name, _ in answer.headers):
        return answer  # handed on from a server that has done it
    body = answer.body
    size = len(body) if isinstance(body, bytes) else sum(map(len, body))
    if size < _LEAST or not accepted(request) or request.path.startswith(_PLAIN):
        return answer
    whole = body if isinstance(body, bytes) else b"".join(body)
    return Response(200, [*(header for header in answer.headers if header != _VARIES), *HEADERS], _whole(whole))


def _whole(data: bytes) -> bytes:
    try:
        from isal import igzip_lib  # type: ignore[import-not-found]
    except ImportError:
        import gzip

        return gzip.compress(data, 1, mtime=0)
    return igzip_lib.compress(data, 1, igzip_lib.COMP_GZIP)
