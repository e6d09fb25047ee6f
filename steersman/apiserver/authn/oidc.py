"""OpenID Connect: tokens of an outside issuer, whose keys are found by discovery.

Owns one issuer's settings, its keys (fetched when first needed, and again when a token names a key that is not known),
the user that a token's claims make, and the groups that a token says to ask somebody else for (distributed claims).
Source: apiserver's plugin/pkg/authenticator/token/oidc; OpenID Connect Core 1.0, 5.6.2, and Discovery 1.0; KEP-3331.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

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
from steersman.lib.http.client import Address, HttpClient, HttpResponse, client_tls
from steersman.lib.http.messages import TooLong, read_at_most

log = logging.getLogger(__name__)

_WELL_KNOWN = "/.well-known/openid-configuration"
_TIMEOUT = 10.0  # seconds
_NOT_BEFORE_LEEWAY = 60.0  # seconds, as go-oidc's
_OTHERS = 64  # issuers of distributed claims that are remembered
_REDIRECTS = 10  # that are followed, as by Go
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
        self._others: dict[str, Oidc] = {}  # who signed distributed claims
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
            shown = " ".join(f'"{each}"' for each in sorted(self._issuer.algorithms))
            text = f"id token signed with unsupported algorithm, expected [{shown}] got {json.dumps(algorithm)}"
            raise BadToken(f"oidc: verify token: oidc: {text}")
        if not self._signed(token, algorithm, number):
            return self._later(token, algorithm, number, claims, audiences)
        self._check(claims)
        endpoint = self._distributed(claims)
        return self._named(claims, audiences) if endpoint is None else self._expanded(endpoint, claims, audiences)

    def _named(self, claims: Object, audiences: Sequence[str]) -> Verified | None:
        return agnostic(self._user(claims), audiences, self._own)

    async def _expanded(self, endpoint: Object, claims: Object, audiences: Sequence[str]) -> Verified | None:
        """The user, with groups that somebody else tells. Raises BadToken."""
        try:
            groups = await self._asked(endpoint)
        except (Unreachable, BadToken) as error:
            raise BadToken(f"oidc: could not expand distributed claims: {error}") from None
        return self._named({**claims, self._issuer.groups: groups}, audiences)

    async def verified(self, token: str) -> Object:
        """The claims of a good token. Raises BadToken, Unreachable."""
        header, claims = jwt.unverified(token)
        algorithm, number = header.get("alg"), header.get("kid", "")
        if not isinstance(algorithm, str) or algorithm not in self._issuer.algorithms:
            raise BadToken("oidc: id token signed with unsupported algorithm")
        if not self._signed(token, algorithm, number) and (problem := await self.begin()):
            raise Unreachable(problem)
        if not self._signed(token, algorithm, number):
            raise BadToken("failed to verify signature: failed to verify id token signature")
        self._check(claims)
        return claims

    def _distributed(self, claims: Object) -> Object | None:
        """Whom to ask for the groups, where the token does not say them itself. Raises BadToken."""
        names, sources = claims.get("_claim_names") or {}, claims.get("_claim_sources") or {}
        if not isinstance(names, dict) or not isinstance(sources, dict):
            raise BadToken("oidc: verify token: oidc: failed to unmarshal claims: not an object")
        if any(not isinstance(source, str) or source not in sources for source in names.values()):
            raise BadToken("oidc: verify token: oidc: source does not exist")
        claim = self._issuer.groups
        if not claim or claim in claims or claim not in names:
            return None
        found = sources[names[claim]]
        return found if isinstance(found, dict) and found.get("endpoint") else None

    async def _asked(self, endpoint: Object) -> Any:
        """The groups claim of the token that an endpoint gives. Raises Unreachable, BadToken."""
        url, claim, headers = str(endpoint["endpoint"]), self._issuer.groups, list[tuple[str, str]]()
        if access := endpoint.get("access_token"):
            headers.append(("authorization", f"Bearer {access}"))
        try:
            token = (await self._read(url, headers)).decode().strip()
        except (Unreachable, UnicodeDecodeError) as error:
            raise Unreachable(f'while getting distributed claim "{claim}": {error}') from None
        issuer = jwt.unverified(token)[1].get("iss")
        if not isinstance(issuer, str):
            raise BadToken(f'getting untrusted issuer from endpoint {url} failed for claim "{claim}"')
        if issuer not in self._others:
            given = Issuer(issuer, self._issuer.audiences, self._issuer.authority, algorithms=self._issuer.algorithms)
            if len(self._others) >= _OTHERS:
                self._others.clear()
            self._others[issuer] = self if issuer == self._issuer.url else Oidc(given, self._clock, self._own)
        try:
            found = await self._others[issuer].verified(token)
        except (BadToken, Unreachable) as error:
            raise BadToken(f"verify distributed claim token: {error}") from None
        if claim not in found:
            raise BadToken(f'jwt returned by distributed claim endpoint "{url}" did not contain claim: {claim}')
        return found[claim]

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
        self._check(claims)
        endpoint = self._distributed(claims)
        if endpoint is not None:
            return await self._expanded(endpoint, claims, audiences)
        return self._named(claims, audiences)

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
        data = await self._read(url, [("accept", "application/json")])
        try:
            found = msgspec.json.decode(data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise Unreachable(f"{url}: no JSON: {error}") from None
        if not isinstance(found, dict):
            raise Unreachable(f"{url}: no object")
        return found

    async def _read(self, url: str, headers: Sequence[tuple[str, str]]) -> bytes:
        """What is there, at the end of all redirects."""
        for _ in range(_REDIRECTS):
            answer, data = await self._once(url, headers)
            if answer.status not in (301, 302, 303, 307, 308) or not (place := answer.header("location")):
                if answer.status != 200:
                    raise Unreachable(f"{url}: status {answer.status}")
                return data
            before, url = url, urljoin(url, place)
            if urlsplit(before).netloc != urlsplit(url).netloc:  # somebody else may not read who we are
                headers = [(name, value) for name, value in headers if name != "authorization"]
        raise Unreachable(f"{url}: stopped after {_REDIRECTS} redirects")

    async def _once(self, url: str, headers: Sequence[tuple[str, str]]) -> tuple[HttpResponse, bytes]:
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
                answer = await client.request("GET", target, headers)
                return answer, await read_at_most(answer, _MOST)
        except TooLong:
            raise Unreachable(f"{url}: more than {_MOST} bytes") from None
        except (OSError, TimeoutError) as error:
            raise Unreachable(f"{url}: {error or 'timed out'}") from error
        finally:
            await client.close()

    # Claims ----------------------------------------------------------------------------------------------------------

    def _user(self, claims: Object) -> User:
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
        return user if AUTHENTICATED in groups else replace(user, groups=(*groups, AUTHENTICATED))

    def _name(self, claims: Object, shown: Object) -> str:
        if (program := self._issuer.expressions.username) is not None:
            return claims_of.text(program, shown, "username")
        name = self._text(claims, self._issuer.username, "username claims")
        verified = claims.get("email_verified", True) if self._issuer.username == "email" else True
        if not isinstance(verified, bool):
            raise BadToken(f"oidc: parse 'email_verified' claim: {_unread(verified, 'bool')}")
        if not verified:
            raise BadToken("oidc: email not verified")
        return self._issuer.username_prefix + name

    def _check(self, claims: Object) -> None:
        now, failed = self._clock.now(), "oidc: verify token: oidc: "
        named, expiry, before = claims.get("aud"), claims.get("exp"), claims.get("nbf")
        named = [named] if isinstance(named, str) else [] if named is None else named
        for name, value in (("sub", claims.get("sub")), ("exp", expiry), ("nbf", before)):
            if value is not None and (_is_text(value) if name == "sub" else _is_number(value)) is False:
                kind = "string" if name == "sub" else "json.Number"
                raise BadToken(f"{failed}failed to unmarshal claims: {_unread(value, kind, f'idToken.{name}')}")
        if not isinstance(named, list) or not all(map(_is_text, named)):
            raise BadToken(f"{failed}failed to unmarshal claims: {_unread(claims['aud'], '[]string', 'idToken.aud')}")
        wanted = sorted(self._issuer.audiences)
        if not set(wanted) & set(named):
            one = len(wanted) == 1
            shown = json.dumps(wanted[0]) if one else f"in [{' '.join(map(json.dumps, wanted))}]"
            raise BadToken(f"{failed}expected audience {shown} got [{' '.join(map(json.dumps, named))}]")
        if expiry is None or expiry <= now:
            raise BadToken(f"{failed}token is expired (Token Expiry: {_shown(expiry)})")
        if before is not None and before > now + _NOT_BEFORE_LEEWAY:
            text = f"current time {_shown(now)} before the nbf (not before) time: {_shown(before)}"
            raise BadToken(f"{failed}{text}")

    def _check_required(self, claims: Object) -> None:
        for claim, value in self._issuer.required.items():
            if claim not in claims:
                raise BadToken(f"oidc: required claim {claim} not present in ID token")
            if not isinstance(claims[claim], str):
                raise BadToken(f"oidc: parse claim {claim}: {_unread(claims[claim], 'string')}")
            if claims[claim] != value:
                raise BadToken(
                    f"oidc: required claim {claim} value does not match. Got = {claims[claim]}, want = {value}"
                )

    def _text(self, claims: Object, name: str, what: str) -> str:
        value = claims.get(name)
        if not isinstance(value, str):
            why = "claim not present" if value is None else _unread(value, "string")
            raise BadToken(f'oidc: parse {what} "{name}": {why}')
        return value

    def _groups(self, claims: Object) -> list[str]:
        value = claims.get(self._issuer.groups) if self._issuer.groups else None
        listed = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not all(_is_text(each) for each in listed):
            raise BadToken(f'oidc: parse groups claim "{self._issuer.groups}": {_unread(value, "string")}')
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


def _unread(value: Any, wanted: str, field: str = "") -> str:
    """Why Go cannot read a value of JSON."""
    kinds = {bool: "bool", str: "string", list: "array", dict: "object"}
    into = f"struct field {field} of" if field else "value of"
    return f"json: cannot unmarshal {kinds.get(type(value), 'number')} into Go {into} type {wanted}"


def _shown(seconds: float | None) -> str:
    """A time as Go prints it."""
    if seconds is None:
        return "0001-01-01 00:00:00 +0000 UTC"
    try:
        return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%d %H:%M:%S +0000 UTC")
    except (OverflowError, ValueError, OSError):
        return str(seconds)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
