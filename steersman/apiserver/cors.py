"""Answers for browsers' scripts of other origins: who is allowed is told so in headers.

Owns the headers and the answer to a preflight. Made by `cluster` where `cors-allowed-origins` names somebody; the API
server asks it before anybody is authenticated. Source: apiserver's pkg/server/filters/cors.go; the Fetch standard.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence

from steersman.lib.http.messages import Answer, Request, Response

_LONGEST = 2048  # bytes of an origin that is looked at
_TOLD = [
    ("access-control-allow-methods", "POST, GET, OPTIONS, PUT, DELETE, PATCH"),
    (
        "access-control-allow-headers",
        "Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, Authorization, X-Requested-With, "
        "If-Modified-Since",
    ),
    ("access-control-expose-headers", "Date"),
    ("access-control-allow-credentials", "true"),
]

Handle = Callable[[Request], Answer | Awaitable[Answer]]


class Cors:
    """Who may ask from elsewhere: origins that one of the patterns is found in."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Raises ValueError for a pattern that is none, or that leaves the host's start or end open."""
        for pattern in patterns:
            if not pattern:
                raise ValueError("empty value in --cors-allowed-origins")
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"--cors-allowed-origins has an invalid regular expression: {error}") from None
            if not (pattern.startswith("^") or "//" in pattern):
                raise ValueError(f"--cors-allowed-origins: {pattern!r} does not pin the start of the host name")
            if not (pattern.endswith(("$", ":")) or "(:|$)" in pattern or re.search(r":\d", pattern)):
                raise ValueError(f"--cors-allowed-origins: {pattern!r} does not pin the end of the host name")
        self._patterns = [re.compile(pattern) for pattern in patterns]

    def __call__(self, request: Request, handle: Handle) -> Answer | Awaitable[Answer]:
        """The answer, with what browsers have to know."""
        origin = request.header("origin") or ""
        if not origin or len(origin) > _LONGEST or not any(each.search(origin) for each in self._patterns):
            return handle(request)
        told = [("access-control-allow-origin", origin), *_TOLD]
        if request.method == "OPTIONS":
            return Response(204, told)
        answer = handle(request)
        return _later(answer, told) if isinstance(answer, Awaitable) else _with(answer, told)


async def _later(answer: Awaitable[Answer], told: list[tuple[str, str]]) -> Answer:
    return _with(await answer, told)


def _with(answer: Answer, told: list[tuple[str, str]]) -> Answer:
    answer.headers = [*answer.headers, *told]
    return answer
