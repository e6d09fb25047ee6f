"""/healthz, /livez and /readyz: checks, whole and one by one.

Owns their answers. `server.py` says which checks there are. Source: apiserver's pkg/server/healthz.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

from steersman.api.errors import ApiError
from steersman.api.validation import quote
from steersman.apiserver.call import User
from steersman.apiserver.request import Query
from steersman.lib.http.messages import Request, Response
from steersman.lib.metrics import Registry

log = logging.getLogger(__name__)

Check = Callable[[], Awaitable[str]]
"""Says what is wrong; nothing when all is well."""

_SINGLE = [("cache-control", "no-cache, private"), ("content-type", "text/plain; charset=utf-8")]
_PLAIN = [*_SINGLE, ("x-content-type-options", "nosniff")]


class Health:
    """The three paths; `checks` by path without its slash, in the order in which they are told."""

    def __init__(self, checks: Mapping[str, Mapping[str, Check]], registry: Registry) -> None:
        self._checks = checks
        self._last = registry.gauge("kubernetes_healthcheck", "1 when the check last passed.", ("name", "type"))
        self._all = registry.counter("kubernetes_healthchecks_total", "Checks made.", ("name", "type", "status"))

    def __call__(self, request: Request, user: User) -> Awaitable[Response] | None:
        """ok, or which check failed."""
        root, _, name = request.path[1:].partition("/")
        checks = self._checks.get(root)
        if checks is None:
            return None
        if not name and not request.path.endswith("/"):
            return self._whole(root, checks, Query(request.query))
        if name not in checks:
            raise ApiError(404, "", "404 page not found")
        return self._single(checks[name])

    async def _single(self, check: Check) -> Response:
        wrong = await _outcome(check)
        if wrong:
            return Response(500, _PLAIN, f"internal server error: {wrong}\n".encode())
        return Response(200, _SINGLE, b"ok")

    async def _whole(self, root: str, checks: Mapping[str, Check], query: Query) -> Response:
        excluded, lines, failed = set(query.all("exclude")), list[str](), False
        for name, check in checks.items():
            if name in excluded:
                lines.append(f"[+]{name} excluded: ok")
                continue
            wrong = await _outcome(check)
            self._last.labels(name, root).set(0 if wrong else 1)
            self._all.labels(name, root, "error" if wrong else "success").inc()
            if wrong:
                log.warning("%s check %s failed: %s", root, name, wrong)
            lines.append(f"[-]{name} failed: reason withheld" if wrong else f"[+]{name} ok")
            failed = failed or bool(wrong)
        if strange := sorted(excluded - checks.keys()):
            names = ",".join(map(quote, strange))
            lines.append(f"warn: some health checks cannot be excluded: no matches for {names}")
        if not failed and not query.has("verbose"):
            return Response(200, _PLAIN, b"ok")
        lines.append(f"{root} check {'failed' if failed else 'passed'}\n")
        return Response(500 if failed else 200, _PLAIN, "\n".join(lines).encode())


async def _outcome(check: Check) -> str:
    try:
        return await check()
    except Exception as error:  # whatever is wrong, the check has failed
        return str(error) or type(error).__name__
