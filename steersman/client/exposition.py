"""What a component tells of itself over HTTP: `GET /metrics` and `GET /healthz`.

Owns the answers' form. Made by `cluster`, which serves it on a socket that only the machine's user can reach.
"""

from __future__ import annotations

from steersman.lib.http.messages import Request, Response
from steersman.lib.metrics import Registry

_TEXT = [("content-type", "text/plain; version=0.0.4; charset=utf-8")]


class Exposition:
    """Answers from `registry`; who answers is well."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def handle(self, request: Request) -> Response:
        """One request; anything but what the module says is 404."""
        if request.method == "GET" and request.path == "/metrics":
            return Response(200, _TEXT, self._registry.text().encode())
        if request.method == "GET" and request.path in ("/healthz", "/livez", "/readyz"):
            return Response(200, _TEXT, b"ok")
        return Response(404, _TEXT, b"404 page not found\n")
