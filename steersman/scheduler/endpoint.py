"""The scheduler's debugging endpoint: `GET /why/NAMESPACE/POD`, `GET /metrics` and `GET /healthz`.

Owns the answers' form. Called by `cluster`, which serves it on a socket that only the machine's user can reach.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import msgspec

from steersman.lib.http.messages import Request, Response
from steersman.lib.metrics import Registry

_METRICS = [("content-type", "text/plain; version=0.0.4; charset=utf-8")]
_JSON = [("content-type", "application/json")]


class Endpoint:
    """Answers from `explain`, which returns None for a pod that is not known, and from `metrics`."""

    def __init__(self, explain: Callable[[str, str], dict[str, Any] | None], metrics: Registry | None = None) -> None:
        self._explain = explain
        self._metrics = metrics

    async def handle(self, request: Request) -> Response:
        """One request; anything but what the module says is 404."""
        parts = request.path.split("/")
        if request.method == "GET" and parts == ["", "healthz"]:
            return Response(200, [("content-type", "text/plain")], b"ok")
        if request.method == "GET" and parts == ["", "metrics"] and self._metrics is not None:
            return Response(200, _METRICS, self._metrics.text().encode())
        if request.method == "GET" and len(parts) == 4 and parts[1] == "why":
            told = self._explain(unquote(parts[2]), unquote(parts[3]))
            if told is not None:
                return Response(200, _JSON, msgspec.json.encode(told))
        return Response(404, _JSON, b'{"error":"not found"}')
