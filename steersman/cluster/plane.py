"""A whole control plane in this process: the API server with everything on, and the controllers.

Owns `ControlPlane`, which needs no root, no other process and no disk but a folder for certificates. Called by the
pytest plugin and by tests of whole behaviours; under a `VirtualLoop`, with `listen=None`, its time is free. Nothing
in it is a fake: authentication, authorization, admission and validation are those of `steer up`.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from random import SystemRandom
from typing import Any

from steersman.client import accounts
from steersman.client.client import Client
from steersman.client.controller import Context
from steersman.client.events import EventRecorder
from steersman.client.informer import Informers
from steersman.client.series import SeriesRecorder
from steersman.client.transport import InProcess
from steersman.cluster import apiserver, certs, kubeconfig
from steersman.cluster.apiserver import Options
from steersman.cluster.profile import DEFAULT_RELEASE, Profile
from steersman.controllers import USUAL
from steersman.controllers.run import run_controllers
from steersman.lib.clock import Clock, SystemClock
from steersman.lib.http.messages import Peer
from steersman.lib.http.server import Server, bound, server_tls
from steersman.lib.tasks import Tasks
from steersman.store.memory import MemoryStore


@dataclass(frozen=True)
class Endpoint:
    """Where to listen, and with what; port 0 takes a free one, without a certificate the plane's own is used.

    `authorities` are further files of CAs whose client certificates are accepted.
    """

    host: str = "127.0.0.1"
    port: int = 0
    certificate: Path | None = None
    key: Path | None = None
    authorities: Sequence[Path] = ()


class ControlPlane:
    """One control plane over the memory store. Use it as `async with`.

    `folder` keeps certificates; planes that share it share them, which saves the making. `client` is the
    administrator's, without sockets; `kubeconfig` is for everybody else and needs `listen`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock | None = None,
        release: str = DEFAULT_RELEASE,
        controllers: Sequence[str] = USUAL,
        scheduler: bool = False,
        listen: Endpoint | None = Endpoint(),
        options: Options | None = None,
        settings: Mapping[str, str] | None = None,
        flags: Mapping[str, str] | None = None,
    ) -> None:
        """`controllers` as --controllers takes them, `settings` theirs; `release` such as "1.33".

        Without `listen` there are no sockets. `flags` are kube-apiserver's, of those in `apiserverflags.EFFECTIVE`.
        """
        self.clock = clock or SystemClock()
        self.url = ""
        given = tuple(f"apiserver.{name}={value}" for name, value in (flags or {}).items())
        self._profile = Profile("test", folder, nodes=0, release=release, extra_config=given, store="memory")
        self._controllers = tuple(controllers)
        self._scheduler = scheduler
        self._listen = listen
        self._options = options or Options()
        self._settings = dict(settings or {})
        self._random = self._options.random or SystemRandom()
        self._stack = AsyncExitStack()
        self.client: Client

    async def __aenter__(self) -> ControlPlane:
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def _start(self, stack: AsyncExitStack) -> None:
        listener = bound(self._listen.host, self._listen.port) if self._listen is not None else None
        if listener is not None:
            stack.callback(listener.close)
            self._profile = replace(self._profile, api_port=listener.getsockname()[1])
        profile = self._profile
        everybody = certs.identities([], ["127.0.0.1", profile.api_service_address], "cluster.local")
        certs.ensure(profile.pki, everybody, SystemClock().now())
        store = MemoryStore()
        stack.push_async_callback(store.close)
        tasks = await stack.enter_async_context(Tasks())
        server = await apiserver.make(profile, store, self.clock, tasks, self._options)
        stack.push_async_callback(server.close)
        if (where := self._listen) is not None and listener is not None:
            tls = server_tls(
                where.certificate or profile.pki / "apiserver.crt",
                where.key or profile.pki / "apiserver.key",
                [profile.pki / "ca.crt", *where.authorities],
            )
            web = await stack.enter_async_context(Server(server.handle, self.clock, tls=tls, limits=apiserver.limits()))
            await web.listen_on(listener)
            self.url = f"https://{where.host}:{profile.api_port}"
        self.client = self._connect(server, stack, "admin", "steersman-testing")
        if self._controllers:
            manager = self._connect(server, stack, "controller-manager", "kube-controller-manager")
            bare = InProcess(server.handle)
            stack.push_async_callback(bare.close)
            alone = self._settings.get(accounts.SETTING) == "true"
            who = accounts.Accounts(manager, bare, self.clock) if alone else None
            tasks.spawn(self._run_controllers(manager, who), "controllers")
        if self._scheduler:
            tasks.spawn(self._run_scheduler(self._connect(server, stack, "scheduler", "kube-scheduler")), "scheduler")

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def _connect(self, server: apiserver.ApiServer, stack: AsyncExitStack, identity: str, component: str) -> Client:
        pem = (self._profile.pki / f"{identity}.crt").read_text()
        transport = InProcess(server.handle, peer=Peer("127.0.0.1", ssl.PEM_cert_to_DER_cert(pem)))
        stack.push_async_callback(transport.close)
        return Client(transport, clock=self.clock, user_agent=component, local=True)

    async def _run_controllers(self, client: Client, who: accounts.Accounts | None) -> None:
        async with Tasks() as tasks:
            recorder = EventRecorder(client, self.clock, tasks, component="controllermanager")
            informers = Informers(client, clock=self.clock, tasks=tasks)
            files = {"root-ca": "ca.crt", "root-ca-key": "ca.key", "service-account-private-key": "sa.key"}
            config = {name: (self._profile.pki / file).read_text() for name, file in files.items()}
            settings = self._settings | config
            context = Context(client, informers, self.clock, recorder, self._random, settings, accounts=who)
            await run_controllers(context, self._controllers)

    async def _run_scheduler(self, client: Client) -> None:
        from steersman.scheduler import scheduler  # NumPy takes long to import: only who wants it pays

        async with Tasks() as tasks:
            recorder = SeriesRecorder(client, self.clock, tasks, controller=scheduler.DEFAULT_NAME, host="plane")
            informers = Informers(client, clock=self.clock, tasks=tasks)
            await scheduler.Scheduler(client, informers, recorder, self.clock, self._random).run()

    def kubeconfig(self) -> dict[str, Any]:
        """The administrator's kubeconfig, certificates embedded."""
        return kubeconfig.entry("steersman", self.url, self._profile.pki, "admin")
