"""Bearer tokens: every source of tokens is asked in turn whose one is.

Owns the order, which audiences a token is for, and the answer to TokenReviews. Sources are files of this package.
Source: apiserver's pkg/authentication/token/union and request/bearertoken.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from steersman.api.errors import unauthorized
from steersman.api.registry import Registry
from steersman.apiserver.authn import bootstraptoken
from steersman.apiserver.authn.serviceaccount import (
    NO_REMARKS,
    AccountTokens,
    BadToken,
    Remarks,
    Tokens,
    Used,
    Uses,
    bearer,
)
from steersman.apiserver.call import User
from steersman.apiserver.storage import Storage
from steersman.lib.clock import Clock
from steersman.lib.http.messages import Request

_SPACED = re.compile("bearer  ", re.IGNORECASE)
_EXTRA_SPACE = "the provided Authorization header contains extra space before the bearer token, and is ignored"


@dataclass(frozen=True, slots=True)
class Verified:
    """A good token: its user, and for which of the wanted audiences it is good."""

    user: User
    audiences: Sequence[str]
    remarks: Remarks = NO_REMARKS


Source = Callable[[str, Sequence[str]], Verified | Awaitable[Verified | None] | None]
"""(token, wanted audiences) to what it is; None when the source does not know it. Raises BadToken."""


class Bearer:
    """Implements `app.Authenticator`. `audiences` are the API server's own."""

    def __init__(self, sources: Sequence[Source], audiences: Sequence[str], uses: Uses | None = None) -> None:
        """`uses`: where service accounts' tokens are counted."""
        self.uses = uses
        self.sources = list(sources)
        self.audiences = list(audiences)

    def __call__(self, request: Request) -> User | Awaitable[User | None] | None:
        """The user of the request's token; None without a token. Raises ApiError 401."""
        try:
            token = bearer(request)
        except BadToken:
            raise unauthorized() from None
        if not token:
            if _SPACED.match(request.header("authorization") or ""):
                request.notes = [*(request.notes or ()), _EXTRA_SPACE]
            return None
        for at, source in enumerate(self.sources):
            try:
                found = source(token, self.audiences)
            except BadToken as error:
                _annotated(request, error.annotations)
                continue
            if isinstance(found, Verified):
                return _remarked(request, found)
            if found is not None:
                return self._later(request, token, found, at + 1)
        raise unauthorized()

    async def _later(self, request: Request, token: str, first: Awaitable[Verified | None], at: int) -> User:
        try:
            found = await first
        except BadToken:
            found = None
        if found is None:
            found, _ = await self._ask(token, self.audiences, at)
        if found is None:
            raise unauthorized()
        return _remarked(request, found)

    async def _ask(self, token: str, audiences: Sequence[str], at: int = 0) -> tuple[Verified | None, list[str]]:
        problems = []
        for source in self.sources[at:]:
            try:
                found = source(token, audiences)
                if found is not None and not isinstance(found, Verified):
                    found = await found
            except BadToken as error:
                problems.append(str(error))
                continue
            if found is not None:
                return found, []
        return None, problems

    async def review(self, token: str, audiences: Sequence[str]) -> Verified | str:
        """What a TokenReview tells of a token: who, or why it is not good."""
        found, problems = await self._ask(token, audiences or self.audiences)
        if found is not None:
            return found
        texts = list(dict.fromkeys(["invalid bearer token", *problems]))
        return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


def _remarked(request: Request, found: Verified) -> User:
    """The user, with what is to be told of the token told."""
    if found.remarks is not NO_REMARKS:
        _annotated(request, found.remarks.annotations)
        if found.remarks.warnings:
            request.notes = [*(request.notes or ()), *found.remarks.warnings]
    return found.user


def _annotated(request: Request, annotations: Mapping[str, str]) -> None:
    if request.context is not None:
        for key, value in annotations.items():
            request.context.annotate(key, value)


def agnostic(user: User | None, wanted: Sequence[str], own: Sequence[str]) -> Verified | None:
    """A user from a source whose tokens have no audience: they are good for the API server's own."""
    shared = [audience for audience in wanted if audience in own]
    return Verified(user, shared) if user is not None and shared else None


def own_sources(
    tokens: Tokens,
    storage: Storage,
    registry: Registry,
    clock: Clock,
    used: Used = lambda _: "",
    uses: Uses | None = None,
) -> list[Source]:
    """What every API server knows: service accounts' tokens, and those that nodes join with."""
    accounts = AccountTokens(tokens, storage, registry, clock, used, uses)

    def account(token: str, audiences: Sequence[str]) -> Verified | None:
        try:
            return Verified(*accounts.user(token, audiences))
        except BadToken:
            if tokens.claimed(token):
                raise
            return None  # asked only now: a good token is known at once

    def bootstrap(token: str, audiences: Sequence[str]) -> Verified | None:
        found = bootstraptoken.user_of(token, storage, registry, clock.now())
        return agnostic(found, audiences, tokens.audiences)

    return [account, bootstrap]
