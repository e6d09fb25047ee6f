"""Logging in to a registry: what a 401 asks for, and the header that answers it.

Owns Basic and Bearer (token server) authentication of one repository. Called by `registry` after a 401. Source:
distribution's token authentication specification and OAuth2 extension; RFC 9110 section 11 for challenges.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

import msgspec

from steersman.engine.interface import Credentials
from steersman.lib.http.messages import Headers

Ask = Callable[[str, str, Headers, bytes], Awaitable[tuple[int, bytes]]]
"""(method, URL, headers, body) to (status, body)."""

_CHALLENGE = re.compile(r'([A-Za-z]+)\s+((?:[\w-]+\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^\s,"]+)\s*,?\s*)+)')
_PARAMETER = re.compile(r'([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


class Unauthorized(Exception):
    """There is nothing to log in with."""


class LoginFailed(Exception):
    """The token server gives no token; the text says why."""


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to log in; `scheme` is lower case."""

    scheme: str
    parameters: dict[str, str]


def challenges(values: Sequence[str]) -> list[Challenge]:
    """What the WWW-Authenticate headers offer."""
    out: list[Challenge] = []
    for value in values:
        for scheme, rest in _CHALLENGE.findall(value[:8192]):
            found = {name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(rest)}
            out.append(Challenge(scheme.lower(), found))
    return out


def basic(login: Credentials) -> str:
    """The value of a Basic Authorization header."""
    return "Basic " + base64.b64encode(f"{login.username}:{login.password}".encode()).decode()


async def answer(offered: Sequence[Challenge], login: Credentials | None, scope: str, ask: Ask) -> str:
    """The Authorization header for these challenges. Raises Unauthorized, LoginFailed and what `ask` raises."""
    for challenge in offered:
        if challenge.scheme == "bearer" and "realm" in challenge.parameters:
            if login is not None and login.registry_token:
                return f"Bearer {login.registry_token}"
            return "Bearer " + await _token(challenge.parameters, login, scope, ask)
        if challenge.scheme == "basic" and login is not None and (login.username or login.password):
            return basic(login)
    raise Unauthorized("no basic auth credentials")


async def _token(parameters: dict[str, str], login: Credentials | None, scope: str, ask: Ask) -> str:
    realm = parameters["realm"]
    if not realm.startswith(("https://", "http://")):
        raise LoginFailed(f"invalid token server {realm!r}")
    wanted = [("service", parameters.get("service", "")), ("scope", parameters.get("scope") or scope)]
    query = [(name, value) for name, value in wanted if value]
    if login is not None and login.identity_token:
        form = [("grant_type", "refresh_token"), ("refresh_token", login.identity_token), ("client_id", "steersman")]
        body = urlencode([*form, *query]).encode()
        method, url = "POST", realm
        headers: Headers = [("content-type", "application/x-www-form-urlencoded")]
    else:
        body, method = b"", "GET"
        headers = [("authorization", basic(login))] if login and (login.username or login.password) else []
        url = realm + ("&" if "?" in realm else "?") + urlencode(query)
    status, answered = await ask(method, url, headers, body)
    if status != 200:
        kind = "oauth token" if login else "anonymous token"
        raise LoginFailed(f"failed to fetch {kind}: unexpected status from {method} request to {url}: {status}")
    try:
        found = msgspec.json.decode(answered, type=_Token)
    except msgspec.MsgspecError as error:
        raise LoginFailed(f"failed to fetch token: {error}") from error
    token = found.token or found.access_token
    if not token or any(c <= " " or c > "~" for c in token):
        raise LoginFailed("failed to fetch token: the answer holds no token")
    return token
