"""A real API server in this process, over the memory store, with no sockets.

Owns `ApiCluster`, what most tests start from. Nothing in it is a fake: requests go through the whole pipeline. Under a
`VirtualLoop` and a `LoopClock` time is free.
"""

from __future__ import annotations

from random import Random

from steersman.api.registry import Registry
from steersman.api.resource import NAMESPACES, Object
from steersman.apiserver.app import ApiServer
from steersman.apiserver.call import Call, User
from steersman.apiserver.request import RequestInfo
from steersman.client.client import Client
from steersman.client.transport import InProcess
from steersman.lib.clock import Clock, LoopClock
from steersman.lib.http.messages import Request
from steersman.store.interface import Store
from steersman.store.memory import MemoryStore

ADMIN = User("kubernetes-admin", ("system:masters", "system:authenticated"))


class NoAdmission:
    """Admits everything as it is."""

    async def mutate(self, call: Call, obj: Object | None, old: Object | None) -> None:
        """Change nothing."""

    async def validate(self, call: Call, obj: Object | None, old: Object | None) -> None:
        """Refuse nothing."""


def everybody_is_admin(request: Request) -> User:
    """An authenticator for tests of everything but identity."""
    return ADMIN


def allow_all(user: User, info: RequestInfo) -> str | None:
    """The AlwaysAllow authorizer."""
    return None


class ApiCluster:
    """An API server and a client of it. Use it as `async with`."""

    def __init__(self, *, clock: Clock | None = None, store: Store | None = None, seed: int = 0) -> None:
        """`seed` makes generated names and uids the same in every run."""
        self.clock = clock or LoopClock()
        self.store = store or MemoryStore()
        self.server = ApiServer(
            self.store,
            Registry(),
            self.clock,
            admission=NoAdmission(),
            authenticators=[everybody_is_admin],
            authorizer=allow_all,
            random=Random(seed),
        )
        self.transport = InProcess(self.server.handle)
        self.client = Client(self.transport, clock=self.clock, user_agent="steersman-testing", local=True)

    async def __aenter__(self) -> ApiCluster:
        await self.server.start()
        there = {each["metadata"]["name"] for each in (await self.client.list(NAMESPACES)).items}
        for name in ("default", "kube-system", "kube-public", "kube-node-lease"):
            if name not in there:
                await self.client.create(NAMESPACES, {"metadata": {"name": name}})
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.transport.close()
        await self.server.close()
        await self.store.close()
