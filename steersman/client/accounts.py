"""Controllers as service accounts: a client for each name, with tokens that are asked for and renewed.

Owns the tokens. Made by `cluster` where `use-service-account-credentials` is set; handed to `controller.Context`. What
is watched stays the component's own: informers are shared. Source: controller-manager's DynamicControllerClientBuilder.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from steersman.api.errors import ApiError
from steersman.api.resource import NAMESPACES, SERVICEACCOUNTS
from steersman.client.client import Client
from steersman.lib.clock import Clock, parse_rfc3339
from steersman.lib.http.messages import ClientResponse, Duplex, Headers, Transport

log = logging.getLogger(__name__)

SETTING = "use-service-account-credentials"
NAMESPACE = "kube-system"
_LIFETIME = 3600  # seconds that are asked for
_LEAST = 600.0  # seconds that a token is taken to last, whatever the clocks say
_LEEWAY = 0.2  # the share of its life that a token has left when another is asked for
_TRIES, _FIRST = 4, 0.5  # seconds


class Accounts:
    """Who asks for a client gets one of the service account of that name; `root` may make accounts and tokens.

    `bare` goes to the same API server without credentials.
    """

    def __init__(self, root: Client, bare: Transport, clock: Clock) -> None:
        self._root = root
        self._bare = bare
        self._clock = clock
        self._known: dict[str, _Bearer] = {}

    def client(self, of: Client, name: str) -> Client:
        """The same as `of`, but for who it is."""
        if name not in self._known:
            self._known[name] = _Bearer(self._root, self._bare, self._clock, name)
        made = of.named(f"system:serviceaccount:{NAMESPACE}:{name}")
        made.transport = self._known[name]
        return made


class _Bearer:
    """A transport whose requests bear a service account's token. Implements `Transport`."""

    def __init__(self, root: Client, inner: Transport, clock: Clock, name: str) -> None:
        self._root = root
        self._inner = inner
        self._clock = clock
        self._name = name
        self._token, self._until = "", 0.0
        self._lock = asyncio.Lock()

    async def request(
        self, method: str, target: str, headers: Headers = (), body: bytes | AsyncIterator[bytes] = b""
    ) -> ClientResponse:
        """Send one request; a token that is refused is not used again."""
        bearing = await self._bearing(headers)
        response = await self._inner.request(method, target, bearing, body)
        if response.status == 401:
            self._until = 0.0
        return response

    async def upgrade(self, method: str, target: str, headers: Headers = ()) -> tuple[ClientResponse, Duplex | None]:
        """Ask for a protocol switch."""
        return await self._inner.upgrade(method, target, await self._bearing(headers))

    async def close(self) -> None:
        """Nothing: the transport below is everybody's."""

    async def _bearing(self, headers: Headers) -> Headers:
        async with self._lock:
            if self._clock.now() >= self._until:
                await self._renew()
        return [*headers, ("authorization", f"Bearer {self._token}")]

    async def _renew(self) -> None:
        """Raises ApiError and OSError after some tries."""
        wait, tries = _FIRST, _TRIES
        while True:
            try:
                await self._ensure()
                body = {"spec": {"expirationSeconds": _LIFETIME}}
                made = await self._root.create(SERVICEACCOUNTS, body, NAMESPACE, name=self._name, subresource="token")
                break
            except (ApiError, OSError, TimeoutError) as error:
                log.warning("cannot get a token of %s/%s: %s", NAMESPACE, self._name, error)
                tries -= 1
                if not tries:
                    raise
            await self._clock.sleep(wait)
            wait *= 2
        now = self._clock.now()
        life = max(parse_rfc3339(made["status"]["expirationTimestamp"]) - now, _LEAST)
        self._token, self._until = made["status"]["token"], now + life * (1 - _LEEWAY)

    async def _ensure(self) -> None:
        """The account is there, and its namespace."""
        try:
            await self._root.get(SERVICEACCOUNTS, self._name, NAMESPACE)
            return
        except ApiError as error:
            if error.code != 404:
                raise
        for kind, name, namespace in ((NAMESPACES, NAMESPACE, ""), (SERVICEACCOUNTS, self._name, NAMESPACE)):
            try:
                await self._root.create(kind, {"metadata": {"name": name}}, namespace)
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise
