"""OpenID Connect: tokens of an outside issuer, whose keys are found by discovery.

Owns one issuer's settings, its keys (fetched when first needed, and again when a token names a key that is not known),
and the user that a token's claims make. Redirects are not followed. Distributed claims are not resolved. Source:
apiserver's plugin/pkg/authenticator/token/oidc; OpenID Connect Discovery 1.0; KEP-3331.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import msgspec

from steersman.api.resource import Object
from steersman.apiserver.authn import claims as claims_of
from steersman.apiserver.authn import jwt
from steersman.apiserver.authn.bearer import Verified, agnostic
from steersman.apiserver.authn.certificate import AUTHENTICATED, CREDENTIAL_ID
from steersman.apiserver.authn.claims import NOTHING, Expressions
from steersman.apiserver.authn.serviceaccount import BadToken
from steersman.apiserver.call import User
from steersman.lib.clock import Clock
from steersman.lib.http.client import Address, HttpClient, client_tls
from steersman.lib.http.messages import TooLong, read_at_most

log = logging.getLogger(__name__)

_WELL_KNOWN = "/.well-known/openid-configuration"
_TIMEOUT = 10.0  # seconds
_NOT_BEFORE_LEEWAY = 300.0  # seconds, as go-oidc's
_FETCH_EVERY = 1.0  # seconds at least between two looks at the keys: anybody can send a token with an unknown key
_MOST = 1 << 20  # bytes of a document


@dataclass(frozen=True)
class Issuer:
    """One issuer, as flags or an AuthenticationConfiguration describe it. `prefix`es go before names and groups."""

    url: str
    audiences: Sequence[str]
    authority: str = ""  # PEM; empty: the system's
    discovery: str = ""  # where the configuration is, when not below `url`
    algorithms: Sequence[str] = ("RS256",)
    username: str = "sub"
    username_prefix: str = ""
    groups: str = ""
    groups_prefix: str = ""
    uid: str = ""
    required: Mapping[str, str] = field(default_factory=dict)
    expressions: Expressions = NOTHING


class Unreachable(Exception):
    """The issuer's documents cannot be had."""


class Oidc:
    """A source of tokens. `own` are the API server's audiences."""

    def __init__(self, issuer: Issuer, clock: Clock, own: Sequence[str]) -> None:
        """Raises ValueError when the authority is no certificate."""
        self._issuer = issuer
        self._clock = clock
        self._own = own
        self._keys: list[jwt.Key] = []
        self._fetched = float("-inf")
        self._fetching = asyncio.Lock()
        try:
            self._tls = client_tls(authority_data=issuer.authority)
        except ssl.SSLError as error:
            raise ValueError(f"the certificate authority cannot be used: {error}") from error

    def __call__(self, token: str, audiences: Sequence[str]) -> Verified | Awaitable[Verified | None] | None:
        """The user of a token of this issuer; None for other issuers'. Raises BadToken."""
        try:
            header, claims = jwt.unverified(token)
        except BadToken:
            return None  # some other kind of token
        if claims.get("iss") != self._issuer.url:
            return None
        algorithm, number = header.get("alg"), header.get("kid", "")
        if not isinstance(algorithm, str) or algorithm not in self._issuer.algorithms:
            shown = " ".join(f'"{each}"' for each in self._issuer.algorithms)
            raise BadToken(f"oidc: verify token: oidc: id token signed with unsupported algorithm, expected [{shown}]")
        if self._signed(token, algorithm, number):
            return agnostic(self._user(claims), audiences, self._own)
        return self._later(token, algorithm, number, claims, audiences)

    async def begin(self) -> str:
        """Fetch the keys; why that is not possible, or nothing."""
        async with self._fetching:
            try:
                self._keys = await self._fetch()
            except Unreachable as error:
                return f"oidc: authenticator for issuer {self._issuer.url!r}: {error}"
        return ""

    async def _later(
        self, token: str, algorithm: str, number: str, claims: Object, audiences: Sequence[str]
    ) -> Verified | None:
        async with self._fetching:
            if not self._signed(token, algorithm, number) and self._fetched + _FETCH_EVERY <= self._clock.monotonic():
                self._fetched = self._clock.monotonic()
                try:
                    self._keys = await self._fetch()
                except Unreachable as error:
                    log.warning("oidc: issuer %s: %s", self._issuer.url, error)
                    raise BadToken(f"oidc: authenticator for issuer {self._issuer.url!r}: {error}") from None
        if not self._signed(token, algorithm, number):
            raise BadToken("oidc: verify token: failed to verify signature: failed to verify id token signature")
        return agnostic(self._user(claims), audiences, self._own)

    def _signed(self, token: str, algorithm: str, number: str) -> bool:
        keys = [key for key in self._keys if not number or key.id == number]
        return any(jwt.verify(token, algorithm, key) for key in keys)

    # The issuer's documents ------------------------------------------------------------------------------------------

    async def _fetch(self) -> list[jwt.Key]:
        where = self._issuer.discovery or self._issuer.url.rstrip("/") + _WELL_KNOWN
        found = await self._get(where)
        if found.get("issuer") != self._issuer.url:
            text = f"issuer did not match the issuer returned by provider, expected {self._issuer.url!r}"
            raise Unreachable(f"oidc: {text} got {found.get('issuer')!r}")
        listed = (await self._get(str(found.get("jwks_uri", "")))).get("keys")
        if not isinstance(listed, list):
            raise Unreachable("the key set has no keys")
        return [key for each in listed if isinstance(each, dict) and (key := jwt.key_of(each)) is not None]

    async def _get(self, url: str) -> Object:
        try:
            parts = urlsplit(url)
            port = parts.port or 443
        except ValueError:
            raise Unreachable(f"{url!r} is not a URL") from None
        if parts.scheme != "https" or not parts.hostname:
            raise Unreachable(f"{url!r} is not an https URL")
        client = HttpClient(Address(parts.hostname, port, self._tls), connect_timeout=_TIMEOUT, answer_timeout=_TIMEOUT)
        try:
            async with asyncio.timeout(_TIMEOUT):
                target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                answer = await client.request("GET", target, [("accept", "application/json")])
                data = await read_at_most(answer, _MOST)
        except TooLong:
            raise Unreachable(f"{url}: more than {_MOST} bytes") from None
        except (OSError, TimeoutError) as error:
            raise Unreachable(f"{url}: {error or 'timed out'}") from error
        finally:
            await client.close()
        if answer.status != 200:
            raise Unreachable(f"{url}: status {answer.status}")
        try:
            found = msgspec.json.decode(data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise Unreachable(f"{url}: no JSON: {error}") from None
        if not isinstance(found, dict):
            raise Unreachable(f"{url}: no object")
        return found

    # Claims ----------------------------------------------------------------------------------------------------------

    def _user(self, claims: Object) -> User:
        self._check(claims)
        given, shown = self._issuer.expressions, claims_of.shown(claims)
        name = self._name(claims, shown)
        if given.groups is not None:
            groups = claims_of.texts(given.groups, shown, "error evaluating group claim expression")
        else:
            groups = [self._issuer.groups_prefix + group for group in self._groups(claims)]
        uid = self._text(claims, self._issuer.uid, "uid claim") if self._issuer.uid else ""
        if given.uid is not None:
            uid = claims_of.text(given.uid, shown, "uid")
        extra: dict[str, tuple[str, ...]] = {}
        extra |= {CREDENTIAL_ID: (f"JTI={claims['jti']}",)} if isinstance(claims.get("jti"), str) else {}
        for key, program in given.extra:
            where = f"error evaluating extra claim expression: {program.source}"
            if values := claims_of.texts(program, shown, where):
                extra[key] = tuple(values)
        self._check_required(claims)
        claims_of.check_claims(given.claim_rules, shown)
        user = User(name, tuple(groups), uid, extra)
        claims_of.check_user(given.user_rules, user)
        return replace(user, groups=tuple(dict.fromkeys([*groups, AUTHENTICATED])))

    def _name(self, claims: Object, shown: Object) -> str:
        if (program := self._issuer.expressions.username) is not None:
            return claims_of.text(program, shown, "username")
        name = self._text(claims, self._issuer.username, "username claims")
        if self._issuer.username == "email" and claims.get("email_verified", True) is not True:
            raise BadToken("oidc: email not verified")
        return self._issuer.username_prefix + name

    def _check(self, claims: Object) -> None:
        now = self._clock.now()
        if not _is_number(claims.get("exp")) or claims["exp"] <= now:
            raise BadToken("oidc: verify token: oidc: token is expired")
        before = claims.get("nbf")
        if before is not None and (not _is_number(before) or before > now + _NOT_BEFORE_LEEWAY):
            raise BadToken("oidc: verify token: oidc: current time is before the nbf (not before) time")
        named = claims.get("aud")
        named = [named] if isinstance(named, str) else named
        if not isinstance(named, list) or not set(self._issuer.audiences) & {each for each in named if _is_text(each)}:
            wanted = " ".join(f'"{each}"' for each in self._issuer.audiences)
            raise BadToken(f"oidc: verify token: oidc: expected audience in [{wanted}] got {named!r}")

    def _check_required(self, claims: Object) -> None:
        for claim, value in self._issuer.required.items():
            if claim not in claims:
                raise BadToken(f"oidc: required claim {claim} not present in ID token")
            if claims[claim] != value:
                raise BadToken(
                    f"oidc: required claim {claim} value does not match. Got = {claims[claim]}, want = {value}"
                )

    def _text(self, claims: Object, name: str, what: str) -> str:
        value = claims.get(name)
        if not isinstance(value, str):
            raise BadToken(f'oidc: parse {what} "{name}": claim not present')
        if not value and what.startswith("username"):
            raise BadToken(f'oidc: parse {what} "{name}": empty')
        return value

    def _groups(self, claims: Object) -> list[str]:
        value = claims.get(self._issuer.groups) if self._issuer.groups else None
        listed = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not all(_is_text(each) for each in listed):
            raise BadToken(f'oidc: parse groups claim "{self._issuer.groups}": not a string or a list of strings')
        return listed


class Outsiders:
    """A source of tokens: all issuers, who may be others after a while. `audiences` are the API server's own."""

    def __init__(self) -> None:
        self.audiences: Sequence[str] = ()
        self._issuers: Sequence[Oidc] = ()

    def believe(self, issuers: Sequence[Oidc]) -> None:
        """From now on believe these, and nobody else."""
        self._issuers = issuers

    def __call__(self, token: str, audiences: Sequence[str]) -> Verified | Awaitable[Verified | None] | None:
        """The user of a token of the issuer that it names, if that is known. Raises BadToken."""
        found = (issuer(token, audiences) for issuer in self._issuers)
        return next((each for each in found if each is not None), None)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
