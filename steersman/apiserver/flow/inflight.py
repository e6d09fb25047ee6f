"""Without priority and fairness: no more requests at a time than two numbers allow, for reads and for writes.

In place of `gate.py` where --enable-priority-and-fairness=false. Asked by `app.py`.
Source: apiserver's pkg/server/filters/maxinflight.go.
"""

from __future__ import annotations

from collections.abc import Awaitable

from steersman.apiserver.call import User
from steersman.apiserver.flow.gate import Serve, too_many
from steersman.apiserver.request import Query, RequestInfo
from steersman.lib.http.messages import Answer, Request

_READS = frozenset({"get", "list", "watch"})


class InFlight:
    """Counts requests that are being answered; 0 is no limit."""

    def __init__(self, reads: int, writes: int) -> None:
        self._most = (writes, reads)
        self._count = [0, 0]

    def through(
        self, serve: Serve, request: Request, query: Query, info: RequestInfo, user: User
    ) -> Answer | Awaitable[Answer]:
        """The answer of `serve`, or that there are too many. Administrators are never too many."""
        if info.long_running:
            return serve(request, query, info, user)
        at = int(info.verb in _READS)
        if self._full(at) and "system:masters" not in user.groups:
            return too_many(1, [])
        answer = serve(request, query, info, user)
        return self._counted(answer, at, user) if isinstance(answer, Awaitable) else answer

    def _full(self, at: int) -> bool:
        return 0 < self._most[at] <= self._count[at]

    async def _counted(self, waiting: Awaitable[Answer], at: int, user: User) -> Answer:
        """Many requests may have come since there was room."""
        if self._full(at) and "system:masters" not in user.groups:
            if (close := getattr(waiting, "close", None)) is not None:
                close()
            return too_many(1, [])
        self._count[at] += 1
        try:
            return await waiting
        finally:
            self._count[at] -= 1
