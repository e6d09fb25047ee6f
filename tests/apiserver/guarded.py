"""An API server as `steer up` makes it, without sockets: tokens, RBAC, admission, addresses and what it starts with."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network
from pathlib import Path
from types import MappingProxyType

import msgspec

from steersman.api.registry import Registry
from steersman.api.resource import Object
from steersman.api.schema import NEWEST
from steersman.apiserver.admission.chain import Chain, chosen
from steersman.apiserver.app import ApiServer
from steersman.apiserver.authn.serviceaccount import Tokens
from steersman.apiserver.bootstrap import bootstrap
from steersman.apiserver.call import User
from steersman.apiserver.ipalloc import Allocator
from steersman.client.client import Client
from steersman.client.transport import InProcess
from steersman.cluster import admissionconfig, certs
from steersman.cluster.identity import Identity
from steersman.lib.clock import Clock, SystemClock
from steersman.lib.http.messages import Request
from steersman.store.memory import MemoryStore
from steersman.testing.cluster import ADMIN

_WAYS = ("enable", "disable")
ISSUER = "https://kubernetes.default.svc.cluster.local"


class Guarded:
    """An API server with RBAC and tokens; `as_user` is a client of anybody."""

    def __init__(
        self,
        folder: Path,
        flags: Mapping[str, str] = MappingProxyType({}),
        *,
        clock: Clock | None = None,
        release: str = NEWEST,
    ) -> None:
        certs.ensure(folder, [], SystemClock().now())
        self.clock = clock or SystemClock()
        self.identity = Identity(flags, self.clock, folder / "ca.crt")
        self.tokens = Tokens((folder / "sa.key").read_bytes(), ISSUER, self.identity.audiences(ISSUER))
        self.authorizer = self.identity.authorizer
        self.admission = Chain(
            chosen(*([name for name in flags.get(f"{way}-admission-plugins", "").split(",") if name] for way in _WAYS))
        )
        self.server = ApiServer(
            MemoryStore(),
            Registry(release),
            self.clock,
            admission=self.admission,
            authenticators=[_named, *self.identity.by_connection()],
            authorizer=self.authorizer,
            anonymous=self.identity.anonymous,
        )
        self.server.services.extras["tokens"] = self.tokens
        settings = flags.get("admission-control-config-file")
        path = Path(settings) if settings else None
        self.server.services.extras |= admissionconfig.read(path, self.admission.names, self.clock)

    async def __aenter__(self) -> Guarded:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.close()

    async def start(self) -> None:
        """Serve, with everything in place."""
        await self.server.start()
        self.identity.attach(self.server.storage, self.server.registry)
        self.bearer = self.identity.by_token(self.tokens, self.server.storage, self.server.registry)
        self.server.authenticators.append(self.bearer)
        self.server.services.extras["bearer"] = self.bearer
        self.admission.attach(self.server)
        await Allocator(self.server, IPv4Network("10.96.0.0/24"), (30000, 30009)).attach()
        await bootstrap(self.server, service_ip="10.96.0.1", port=6443, dns="10.96.0.10", resolvers=[])

    def client(self, user: str = "", token: str = "") -> Client:
        """Acts as a user (`name`, or `name,group,group`), or with a token."""
        headers = [("x-test-user", user)] if user else [("authorization", f"Bearer {token}")]
        return Client(InProcess(self.server.handle, headers=headers), clock=self.clock, user_agent="tests")


def _named(request: Request) -> User | None:
    name = request.header("x-test-user")
    if name == "admin":
        return ADMIN
    if not name:
        return None
    name, *groups = name.split(",")
    return User(name, (*groups, "system:authenticated"))


async def status(client: Client, method: str, path: str, body: Object | None = None) -> tuple[int, str]:
    """The answer's code, and its message where it is a Status; the whole text where it is one."""
    response, answer = await client.raw(method, path, msgspec.json.encode(body) if body else b"")
    if (response.header("content-type") or "").startswith("text/plain"):
        return response.status, answer.decode()
    return response.status, str(msgspec.json.decode(answer).get("message", ""))
