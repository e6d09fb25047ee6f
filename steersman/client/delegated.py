"""A component's own HTTPS port: who asks is found out, and whether he may, by asking the API server.

Owns the handler in front of another. Made by `cluster` for the scheduler's and the controllers' ports. Health is told
to everybody; other paths need a verb on a path that is no resource's, as the ClusterRole system:monitoring has them.
Source: apiserver's DelegatingAuthenticationOptions and DelegatingAuthorizationOptions, with their default cache times.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from steersman.api.errors import ApiError
from steersman.client.callers import Caller, Reviews, bearer, caller
from steersman.client.client import Client
from steersman.lib.clock import Clock
from steersman.lib.http.messages import Request, Response

_OPEN = ("/healthz", "/livez", "/readyz")
_NOBODY = Caller("system:anonymous", ["system:unauthenticated"])
_GOOD = 10.0  # seconds that an answer is good for
_JSON = [("content-type", "application/json")]
Inner = Callable[[Request], Awaitable[Response]]


class Delegated:
    """The handler of one port: `inner` answers those who may ask."""

    def __init__(self, inner: Inner, client: Client, clock: Clock) -> None:
        self._inner = inner
        self._reviews = Reviews(client, clock, yes=_GOOD, no=_GOOD, identity=_GOOD)

    async def handle(self, request: Request) -> Response:
        """One request."""
        token, who = bearer(request), caller(request)
        if who is None:
            who = await self._reviews.identify(token) if token else _NOBODY
        if who is None:
            return _refused(ApiError(401, "Unauthorized", "Unauthorized"))
        if request.path not in _OPEN and "system:masters" not in who.groups:
            verb = request.method.lower()
            if who is not _NOBODY and "system:authenticated" not in who.groups:
                who = Caller(who.name, [*who.groups, "system:authenticated"])
            what = {"nonResourceAttributes": {"path": request.path, "verb": verb}}
            if not await self._reviews.may(who, what):
                text = f'forbidden: User "{who.name}" cannot {verb} path "{request.path}"'
                return _refused(ApiError(403, "Forbidden", text, {}))
        return await self._inner(request)


def _refused(error: ApiError) -> Response:
    return Response(error.code, _JSON, msgspec.json.encode(error.status()))
