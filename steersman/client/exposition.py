"""What a component tells of itself over HTTP: `/metrics`, `/healthz`, `/livez`, `/readyz`, `/configz`, and
`/statusz` and `/flagz` of `zpages`.

Owns the answers' form. Made by `cluster`, which serves it on a socket that only the machine's user can reach, and on
the component's port behind `delegated`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from steersman.api.errors import ApiError
from steersman.client.zpages import Pages
from steersman.lib.http.messages import Request, Response
from steersman.lib.metrics import Registry

_METRICS = [("content-type", "text/plain; version=0.0.4; charset=utf-8")]
_TEXT = [("content-type", "text/plain; charset=utf-8"), ("x-content-type-options", "nosniff")]
_JSON = [("content-type", "application/json")]
_HEALTH = ("/healthz", "/livez", "/readyz")


class Exposition:
    """Answers from `registry`, which may be another later; who answers is well. `config`: by its group's name."""

    def __init__(self, registry: Registry, config: Mapping[str, Any] | None = None, pages: Pages | None = None) -> None:
        self.registry = registry
        self._config = config
        self._pages = pages

    async def handle(self, request: Request) -> Response:
        """One request; anything but what the module says is 404."""
        path = request.path
        if request.method in ("GET", "HEAD"):
            if path == "/metrics":
                return Response(200, _METRICS, self.registry.text().encode())
            if path in _HEALTH:
                return Response(200, _TEXT, _verbose(path) if "verbose" in request.query else b"ok")
            if path == "/configz" and self._config is not None:
                return Response(200, _JSON, msgspec.json.encode(self._config))
            if self._pages is not None and (found := self._page(self._pages, request)) is not None:
                return found
        return Response(404, _TEXT, b"404 page not found\n")

    def _page(self, pages: Pages, request: Request) -> Response | None:
        try:
            return pages(request)
        except ApiError as error:
            return Response(error.code, _JSON, msgspec.json.encode(error.status()) + b"\n")


def _verbose(path: str) -> bytes:
    return f"[+]ping ok\n{path.strip('/')} check passed\n".encode()
